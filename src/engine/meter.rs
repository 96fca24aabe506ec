//! Where the time of passes goes: kinds of work, each with the bytes that it must move and the
//! arithmetic that it must do. Counts; judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

/// Kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Convolution, gates and recurrence of KDA layers.
    Kda,
    /// Attention of MLA layers to the rows of the cache.
    Mla,
    /// The experts that the router chose.
    Experts,
    /// Every other product but the head's: projections, router, dense and shared feed-forward.
    Dense,
    /// The product with the vocabulary.
    Head,
    /// Embedding, norms, routing, storing rows, copies.
    Other,
}

impl Work {
    pub const ALL: [Work; 6] = [
        Work::Kda,
        Work::Mla,
        Work::Experts,
        Work::Dense,
        Work::Head,
        Work::Other,
    ];

    /// Its arithmetic is that of 32-bit floats, whatever the weights' type.
    pub fn is_of_floats(self) -> bool {
        matches!(self, Work::Kda | Work::Mla | Work::Other)
    }

    pub fn name(self) -> &'static str {
        match self {
            Work::Kda => "kda",
            Work::Mla => "mla",
            Work::Experts => "experts",
            Work::Dense => "dense products",
            Work::Head => "head",
            Work::Other => "other",
        }
    }
}

/// What a kind of work took, and the least that it could have moved: every weight and every row of
/// state once a pass. Nothing is counted for [`Work::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    pub time: Duration,
    pub bytes: u64,
    /// Multiplications and additions.
    pub operations: u64,
}

/// What a kernel of a device took, all its runs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ran {
    pub runs: u64,
    pub time: Duration,
}

/// Passes, added up.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    spent: [Spent; Work::ALL.len()],
    kernels: BTreeMap<&'static str, Ran>,
}

impl Meter {
    pub fn add(&mut self, work: Work, more: Spent) {
        let spent = &mut self.spent[work as usize];
        spent.time += more.time;
        spent.bytes += more.bytes;
        spent.operations += more.operations;
    }

    /// One run of a kernel, whose time is that of some work too.
    pub fn ran(&mut self, kernel: &'static str, time: Duration) {
        let ran = self.kernels.entry(kernel).or_default();
        ran.runs += 1;
        ran.time += time;
    }

    /// By name. None where kernels are not timed one by one.
    pub fn kernels(&self) -> impl Iterator<Item = (&'static str, Ran)> {
        self.kernels.iter().map(|(&name, &ran)| (name, ran))
    }

    pub fn of(&self, work: Work) -> Spent {
        self.spent[work as usize]
    }

    /// Of all kinds together.
    pub fn time(&self) -> Duration {
        self.spent.iter().map(|s| s.time).sum()
    }
}
