//! The judgement of what computes beside the processor: by kernels of our own on an NVIDIA card, or by
//! ggml's backend that the program was built with.

use super::judge::{Finding, Verdict, but, good};
use super::machine::{Gpu, Machine, Needs, size};

pub(super) fn gpu(machine: &Machine, needs: Option<&Needs>) -> Finding {
    let card = &machine.card;
    if let (Some(name), Some(memory)) = (&card.name, card.memory) {
        let found = format!("{name}, {}, by kernels of our own", size(memory));
        return room(found, Some(memory), needs);
    }
    match machine.gpus.first() {
        Some(gpu) if gpu.by.iter().any(|api| machine.built_for.contains(api)) => {
            let memory = gpu.memory.map(|m| format!(", {}", size(m)));
            let found = format!("{}{}", gpu.name, memory.unwrap_or_default());
            room(found, gpu.memory, needs)
        }
        Some(gpu) if gpu.by.contains(&"cuda") => unused(machine, &gpu.name),
        // In some containers the driver alone knows of a card.
        _ if card.name.is_some() => unused(machine, card.name.as_deref().unwrap_or_default()),
        Some(gpu) => foreign(gpu),
        None => nothing(machine),
    }
}

fn nothing(machine: &Machine) -> Finding {
    if machine.built_for.is_empty() {
        let found = match &machine.card.kernels {
            None => "none; this build computes on the CPU".into(),
            Some(file) => format!("none; {} would serve NVIDIA's", file.display()),
        };
        return good("gpu", found);
    }
    let found = format!(
        "none; this build could use {}",
        machine.built_for.join(", ")
    );
    let advice = "if there is one, its driver is not loaded";
    but("gpu", Verdict::Note, found, advice)
}

/// A card of another maker's, which no backend of this build reaches.
fn foreign(gpu: &Gpu) -> Finding {
    let wanted = gpu.by.first().copied().unwrap_or("vulkan");
    let advice = format!("this build does not use it: build with --features {wanted}");
    but("gpu", Verdict::Note, gpu.name.clone(), advice)
}

/// A card of NVIDIA's, and the step to it that was not made.
fn unused(machine: &Machine, name: &str) -> Finding {
    let card = &machine.card;
    let why = card.why_not.as_deref().unwrap_or("nobody knows why");
    let found = format!("{name}, not used: {why}");
    let advice = if card.name.is_none() {
        "NVIDIA's driver brings libcuda.so.1 and the devices: see docs/gpu.md"
    } else if card.kernels.is_none() {
        "make cuda builds the file beside the program: see docs/gpu.md"
    } else {
        "make cuda builds the file of this program for this card: see docs/gpu.md"
    };
    but("gpu", Verdict::Note, found, advice)
}

/// A device that is used, and whether the model fits there.
fn room(found: String, memory: Option<u64>, needs: Option<&Needs>) -> Finding {
    let wanted = needs.map_or(0, Needs::whole);
    if memory.is_some_and(|m| m < wanted) {
        let advice = format!(
            "the model with one conversation needs {} there: set model.device = \"cpu\"",
            size(wanted)
        );
        return but("gpu", Verdict::Note, found, advice);
    }
    good("gpu", found)
}
