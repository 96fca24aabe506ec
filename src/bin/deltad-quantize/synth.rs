//! `synth`: a random model of a known shape.

use crate::args::Synth;
use crate::progress::{Progress, Unit};
use deltad::interrupt;
use deltad::stdio;
use quantize::error::Error;
use quantize::{schema, source, synth};

pub fn run(args: &Synth) -> Result<(), Error> {
    let h = args.shape.hparams(usize::from(args.layers), args.all_mla);
    let values = schema::tensors(&h).iter().map(source::elements).sum();
    let interrupted = interrupt::flag().map_err(|source| Error::Io {
        path: args.target.clone(),
        source,
    })?;
    let mut progress = Progress::new(values, Unit::Values, args.quiet);
    let written = synth::write(
        &h,
        args.to,
        &args.target,
        args.overwrite,
        &interrupted,
        &mut progress,
    );
    let seconds = progress.finish();
    written?;
    if !args.quiet {
        stdio::remark(format_args!(
            "{}: {:.0} M weights, {seconds:.1} s",
            args.target.display(),
            values as f64 / 1e6
        ));
    }
    Ok(())
}
