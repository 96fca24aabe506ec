//! Which model for which memory: the published checkpoints that this program reads, and the best file
//! of one for a machine. From their shapes alone: nobody has run the real weights with it. README's
//! table is [`page`], word for word.

use std::fmt::Write;

use quantize::recipe::FileType;
use quantize::schema::{Hparams, Mixer};
use quantize::synth::Shape;

use super::machine::{Needs, size};
use super::needs;

/// A conversation that has room beside the weights, in tokens.
const CONVERSATION: usize = 32 << 10;

/// Finest first; those that one command makes, without an importance matrix.
const TYPES: [FileType; 5] = [
    FileType::Q8_0,
    FileType::Q6K,
    FileType::Q4KM,
    FileType::Q3KM,
    FileType::Q2K,
];

/// What the largest model can be made into for a small machine, finest first.
const LOW: [FileType; 8] = [
    FileType::Q3KS,
    FileType::Iq3S,
    FileType::Iq3Xxs,
    FileType::Q2K,
    FileType::Iq2S,
    FileType::Iq2Xs,
    FileType::Iq2Xxs,
    FileType::Iq1M,
];

/// A model as its makers publish it, 16 bits a weight.
struct Checkpoint {
    /// On the hub.
    repository: &'static str,
    /// Begins the names of its files.
    file: &'static str,
    hparams: fn() -> Hparams,
}

/// Largest first: what it knows is preferred to how finely it is written.
const CHECKPOINTS: [Checkpoint; 2] = [
    Checkpoint {
        repository: "moonshotai/Kimi-Linear-48B-A3B-Instruct",
        file: "kimi",
        hparams: kimi,
    },
    Checkpoint {
        repository: "inclusionAI/Ling-3.0-tiny",
        file: "ling",
        hparams: || Shape::LingTiny.hparams(24, false),
    },
];

/// Its last layer is MLA, beyond the rule of every fourth.
fn kimi() -> Hparams {
    let mut h = Shape::Full48b.hparams(27, false);
    h.layers[26].mixer = Mixer::Mla;
    h
}

/// A file to make for a machine.
pub struct Offer {
    checkpoint: &'static Checkpoint,
    to: FileType,
    pub needs: Needs,
}

/// The best that takes, with one conversation, at most three quarters of `memory` bytes.
pub fn offer(memory: u64) -> Option<Offer> {
    let all = CHECKPOINTS.iter().flat_map(|c| TYPES.map(|to| (c, to)));
    let mut offers = all.map(|(checkpoint, to)| {
        let file = format!("{}-{to}.gguf", checkpoint.file);
        let needs = needs::of_shape(&(checkpoint.hparams)(), to, CONVERSATION);
        Offer {
            checkpoint,
            to,
            needs: Needs {
                path: file.into(),
                ..needs
            },
        }
    });
    offers.find(|o| o.needs.whole() <= memory / 4 * 3)
}

impl Checkpoint {
    /// And the directory that it is fetched into.
    fn name(&self) -> &'static str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    fn fetch(&self) -> String {
        let name = self.name();
        format!("hf download {} --local-dir {name}", self.repository)
    }

    fn bytes(&self) -> u64 {
        needs::of_shape(&(self.hparams)(), FileType::Bf16, 0).file
    }
}

impl Offer {
    fn convert(&self) -> String {
        format!(
            "deltad-quantize convert {} {} --type {}",
            self.checkpoint.name(),
            self.needs.path.display(),
            self.to
        )
    }

    /// In one line, for memory of the measured speed.
    pub fn advice(&self, speed: Option<f64>) -> String {
        let pace = speed.map(|speed| {
            let rate = self.needs.rate(speed);
            format!(", at most {rate:.0} tokens a second")
        });
        format!(
            "for this memory: {} as {} ({}{}): {} && {}",
            self.checkpoint.name(),
            self.to,
            size(self.needs.file),
            pace.unwrap_or_default(),
            self.checkpoint.fetch(),
            self.convert()
        )
    }
}

/// Memories as they are sold, in GB (which are GiB there).
const SOLD: [u64; 5] = [8, 16, 24, 32, 64];

/// The table and its commands, as Markdown.
pub fn page() -> String {
    let mut table = format!(
        "| memory | model | type | file | {}k tokens | tokens/s at 25 GB/s | at 50 GB/s | at 100 GB/s |\n\
         |---|---|---|---|---|---|---|---|\n",
        CONVERSATION >> 10
    );
    let mut commands: Vec<(String, String)> = Vec::new();
    for sold in SOLD {
        let Some(offer) = offer(sold << 30) else {
            continue;
        };
        let needs = &offer.needs;
        let _ = write!(
            table,
            "| {sold} GB | {} | `{}` | {} | {} |",
            offer.checkpoint.name(),
            offer.to,
            size(needs.file),
            size(needs.conversation())
        );
        for speed in [25e9, 50e9, 100e9] {
            let _ = write!(table, " {:.0} |", needs.rate(speed));
        }
        table.push('\n');
        let bytes = size(offer.checkpoint.bytes());
        for step in [
            (offer.checkpoint.fetch(), format!("{bytes} to fetch")),
            (offer.convert(), format!("for {sold} GB")),
        ] {
            match commands.iter_mut().find(|(command, _)| *command == step.0) {
                None => commands.push(step),
                Some((_, why)) if why.starts_with("for") => *why += &format!(", {sold} GB"),
                Some(_) => {}
            }
        }
    }
    let lines = commands
        .iter()
        .map(|(command, why)| format!("{command}  # {why}\n"));
    format!("{table}\n```sh\n{}```\n", lines.collect::<String>())
}

/// The table of the largest model in few bits, as Markdown.
pub fn page_of_low() -> String {
    let checkpoint = &CHECKPOINTS[0];
    let mut table = format!(
        "| {} as | file | for a memory of | importance matrix | tokens/s at 50 GB/s | mean KL of the demo model |\n\
         |---|---|---|---|---|---|\n",
        checkpoint.name()
    );
    for to in LOW {
        let needs = needs::of_shape(&(checkpoint.hparams)(), to, CONVERSATION);
        let memory = (needs.whole() as f64 * 4.0 / 3.0 / f64::from(1 << 30)).ceil();
        let matrix = if to.needs_importance() {
            "needed"
        } else {
            "of use"
        };
        let loss = to.divergence().map(|kl| format!("{kl:.3}"));
        let _ = writeln!(
            table,
            "| `{to}` | {} | {memory} GB | {matrix} | {:.0} | {} |",
            size(needs.file),
            needs.rate(50e9),
            loss.unwrap_or_default()
        );
    }
    table
}
