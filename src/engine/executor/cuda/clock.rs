//! Where the time of a pass went: what each kernel took by the card's clock, told to a meter with what
//! the pass had to move. Kernels run one by one meanwhile, so that together they take longer than the
//! same pass from its record.

use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Part, Stream, Took};
use ggml_kernels::cuda::mixers::MOST_ROWS;

use super::counted::{Counted, LaneRows};
use super::kinds::{Manner, kinds};
use super::state::Open;
use super::{Came, Cuda, Model, Share, wanted};
use crate::engine::executor::moved::Looking;
use crate::engine::meter::{Meter, Spent, Work};

/// The experts that a timed pass chose, layer by layer; the pass itself writes the next layer's over
/// them.
#[derive(Debug)]
pub(super) struct Choices {
    ids: Buffer<u32>,
    /// Of each layer.
    most: usize,
}

impl Choices {
    /// For so many rows of every layer.
    pub fn new(device: &Device, model: Model<'_>, rows: usize) -> Result<Choices, CudaError> {
        let most = rows * model.h.moe.used;
        Ok(Choices {
            ids: device.zeroed(model.h.layers.len() * most)?,
            most,
        })
    }

    pub fn keep(&self, stream: &Stream, layer: usize, ids: Part<'_, u32>) -> Result<(), CudaError> {
        let at = layer * self.most;
        stream.copy(ids, self.ids.part(at..at + ids.len())?)
    }
}

impl Cuda {
    /// As [`Cuda::run`], with every kernel timed.
    pub(super) fn run_timed(
        &mut self,
        shares: &[Share<'_>],
        opens: &[Open],
        meter: &mut Meter,
    ) -> Result<Vec<Came>, CudaError> {
        let lane = |share: &Share<'_>| LaneRows {
            looking: Looking {
                past: share.past,
                rows: share.tokens.len(),
            },
            wanted: wanted(share),
        };
        let lanes: Vec<_> = shares.iter().map(lane).collect();
        // Lanes that fill a small pass up choose too.
        let rows = shares.iter().map(|s| s.tokens.len()).sum::<usize>();
        let rows = rows.max(MOST_ROWS);
        let choices = Choices::new(self.stream.device(), self.model(), rows)?;
        self.stream.time()?;
        let logits = self.run(shares, opens, Some(&choices));
        // Whatever came of it, the clock stops.
        let took = self.stream.took();
        let (logits, took) = (logits?, &took?);
        let (model, manner) = (self.model(), Manner::of(shares));
        let (lanes, choices) = (&lanes, &choices);
        let timed = Timed {
            model,
            manner,
            lanes,
            choices,
            took,
        };
        timed.tell(meter)?;
        Ok(logits)
    }
}

/// A pass that was timed.
struct Timed<'p> {
    model: Model<'p>,
    manner: Manner,
    lanes: &'p [LaneRows],
    choices: &'p Choices,
    took: &'p [Took],
}

impl Timed<'_> {
    /// Nothing may be under way any more.
    fn tell(&self, meter: &mut Meter) -> Result<(), CudaError> {
        let Timed { model, manner, .. } = *self;
        let all = self.choices.ids.read()?;
        let (layers, used) = (model.h.layers.len(), model.h.moe.used);
        let rows: usize = self.lanes.iter().map(|lane| lane.looking.rows).sum();
        let wanted: usize = self.lanes.iter().map(|lane| lane.wanted).sum();
        let chosen = |layer: usize| {
            let is_cut = manner == Manner::Wide && layer + 1 == layers;
            let rows = if is_cut { wanted } else { rows };
            &all[layer * self.choices.most..][..rows * used]
        };
        let counted = Counted::of(model, manner, self.lanes, chosen);
        for work in Work::ALL {
            let moved = counted.moved(work);
            let spent = Spent {
                bytes: moved.bytes,
                operations: moved.operations,
                ..Spent::default()
            };
            meter.add(work, spent);
        }
        let names: Vec<&str> = self.took.iter().map(|took| took.kernel).collect();
        for (took, work) in self.took.iter().zip(kinds(manner, &names)) {
            let time = took.time;
            let spent = Spent {
                time,
                ..Spent::default()
            };
            meter.add(work, spent);
            meter.ran(took.kernel, time);
        }
        Ok(())
    }
}
