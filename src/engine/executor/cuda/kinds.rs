//! Which kind of work each kernel of a pass did, told by its name and by its neighbours: a kernel that
//! does several is of the kind whose bytes it reads.

use ggml_kernels::cuda::mixers::MOST_ROWS;

use super::Share;
use crate::engine::meter::Work;

/// How a pass is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// One token of each of a few sequences.
    Small,
    Wide,
}

impl Manner {
    pub fn of(shares: &[Share<'_>]) -> Manner {
        let is_small = shares.len() <= MOST_ROWS && shares.iter().all(|s| s.tokens.len() == 1);
        if is_small {
            Manner::Small
        } else {
            Manner::Wide
        }
    }
}

/// Of every kernel of a pass, in the order in which they ran.
pub(super) fn kinds(manner: Manner, names: &[&str]) -> Vec<Work> {
    let kind = |at| kind(manner, &names[..at], names[at], &names[at + 1..]);
    (0..names.len()).map(kind).collect()
}

fn kind(manner: Manner, before: &[&str], name: &str, after: &[&str]) -> Work {
    let is = |families: &[&str]| families.iter().any(|family| name.starts_with(family));
    if is(&["kda_"]) {
        return Work::Kda;
    }
    if is(&["mla_"]) {
        return Work::Mla;
    }
    if is(&["products"]) {
        let is_head = manner == Manner::Wide || !after.contains(&NORM);
        return if is_head { Work::Head } else { Work::Dense };
    }
    if is(&["gate_up", "down"]) {
        // The dense layers' are the same kernels, but nothing was chosen for them.
        let above = before.iter().rev();
        let mut above = above.filter(|name| **name == NORM || name.starts_with(CHOICE));
        let chosen = above.next().is_some_and(|name| *name != NORM);
        return if chosen { Work::Experts } else { Work::Dense };
    }
    if is(&["wide_"]) {
        let expands = || {
            let next = after.iter().find(|name| !name.starts_with("wide_"));
            next.is_some_and(|name| name.starts_with("mla_flash"))
        };
        return match name {
            "wide_group" | "wide_combine" => Work::Experts,
            _ if name.contains("experts") => Work::Experts,
            // Keys and values of the cache's rows.
            _ if expands() => Work::Mla,
            _ => Work::Dense,
        };
    }
    match name {
        // The router's product is in it.
        "route_small" => Work::Dense,
        _ => Work::Other,
    }
}

const NORM: &str = "norm_rows";
const CHOICE: &str = "route_";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(manner: Manner, names: &str) -> String {
        let names: Vec<&str> = names.split_whitespace().collect();
        let told = kinds(manner, &names);
        let told: Vec<&str> = told.into_iter().map(Work::name).collect();
        told.join(", ")
    }

    #[test]
    fn of_a_small_pass_the_last_product_is_the_head() {
        let layers = "embed norm_rows products_n9_b1 kda_step_128 kda_gate_128 products_n4_b1 \
                      norm_rows gate_up down norm_rows products_n9_b1 norm_rows products_n9_b1 \
                      mla_row_f16 mla_attend_k16_16_4 mla_finish_k_f16 products_n4_b1 \
                      norm_rows route_small gate_up down norm_rows products_n9_b1";
        let wanted = "other, other, dense products, kda, kda, dense products, \
                      other, dense products, dense products, other, dense products, other, \
                      dense products, mla, mla, mla, dense products, \
                      other, dense products, experts, experts, other, head";
        assert_eq!(told(Manner::Small, layers), wanted);
    }

    #[test]
    fn a_router_of_blocks_is_a_product_and_its_choice_is_none() {
        let layer = "norm_rows products_n9_b1 route_wide gate_up down norm_rows products_n9_b1";
        let wanted = "other, dense products, other, experts, experts, other, head";
        assert_eq!(told(Manner::Small, layer), wanted);
    }

    #[test]
    fn of_a_wide_pass_products_on_the_way_to_attention_are_attention() {
        let layer = "embed norm_rows wide_8 wide_4 mla_rows mla_gather wide_8 wide_2 mla_flash_k128 \
                     wide_8 wide_2 mla_flash_k128 wide_hopper_64 norm_rows wide_4 route_wide wide_4 wide_6 \
                     wide_group wide_hopper_experts wide_experts_4 wide_combine norm_rows products_n9_b8";
        let wanted = "other, other, dense products, dense products, mla, mla, mla, mla, mla, \
                      mla, mla, mla, dense products, other, dense products, other, dense products, \
                      dense products, experts, experts, experts, experts, other, head";
        assert_eq!(told(Manner::Wide, layer), wanted);
    }

    #[test]
    fn a_wide_pass_of_many_wanted_rows_has_many_heads() {
        let rows = "norm_rows products_n9_b8 norm_rows products_n9_b1";
        assert_eq!(told(Manner::Wide, rows), "other, head, other, head");
    }
}
