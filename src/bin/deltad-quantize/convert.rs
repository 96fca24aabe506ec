//! `convert`: plan, show or write, one file or one for each type.

use crate::args::Convert;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};
use crate::table;
use deltad::interrupt;
use deltad::stdio;
use quantize::convert::{self, Conversion, Input, Options, Step, budget};
use quantize::error::Error;
use quantize::imatrix::{FEW, Imatrix, Importance};
use quantize::recipe::FileType;
use quantize::schema::Role;
use std::path::{Path, PathBuf};

/// One file to write.
struct Job<'a> {
    conversion: Conversion<'a>,
    target: PathBuf,
    /// What is to be said of the choice.
    chosen: String,
}

pub fn run(args: &Convert) -> Result<(), Failure> {
    let input = Input::open(&args.source)?;
    let imatrix = args.imatrix.as_deref().map(Imatrix::open).transpose()?;
    let jobs = jobs(args, &input, imatrix.is_some())?;
    if args.dry_run {
        let mut page = String::new();
        for job in &jobs {
            page += &(show(&job.conversion, imatrix.as_ref())? + &job.chosen);
        }
        return stdio::print(page).map_err(Failure::Output);
    }
    if !args.quiet {
        for job in &jobs {
            remarks(&job.conversion, imatrix.as_ref())?;
            job.chosen.lines().for_each(stdio::remark);
        }
    }
    let here = |e| Error::Io {
        path: Path::new("deltad-quantize").into(),
        source: e,
    };
    let interrupted = interrupt::flag().map_err(here)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads.map_or(0, usize::from))
        .build()
        .map_err(|e| here(std::io::Error::other(e)))?;
    let values = jobs.iter().map(|job| job.conversion.values()).sum();
    let mut progress = Progress::new(values, Unit::Values, args.quiet);
    let all: Vec<_> = jobs.iter().map(|j| (&j.conversion, &*j.target)).collect();
    let imatrix = imatrix.as_ref();
    let written =
        pool.install(|| convert::write(&all, args.overwrite, imatrix, &interrupted, &mut progress));
    let seconds = progress.finish();
    written?;
    if !args.quiet {
        for job in &jobs {
            stdio::remark(format_args!(
                "{}: {}, {:.2} bits per weight, {seconds:.1} s",
                job.target.display(),
                table::bytes(job.conversion.file_size()),
                bits_per_weight(&job.conversion),
            ));
        }
    }
    Ok(())
}

/// One for each type asked for, or for the best that fits.
fn jobs<'a>(args: &Convert, input: &'a Input, has_matrix: bool) -> Result<Vec<Job<'a>>, Failure> {
    if let Some(limit) = args.size {
        let (conversion, to, chosen) = best(args, input, limit, has_matrix)?;
        let target = target(&args.target, to);
        return Ok(vec![Job {
            conversion,
            target,
            chosen,
        }]);
    }
    let mut jobs: Vec<Job<'_>> = Vec::with_capacity(args.to.len());
    for &to in &args.to {
        let target = target(&args.target, to);
        if jobs.iter().any(|job| job.target == target) {
            let what = "more than one file of this name; put {type} into it, and each type once";
            return Err(Failure::input(&target, what));
        }
        let overrides = args.overrides.clone();
        jobs.push(Job {
            conversion: Conversion::plan(input, &Options { to, overrides })?,
            target,
            chosen: String::new(),
        });
    }
    Ok(jobs)
}

/// The name that a file of this type gets.
fn target(pattern: &Path, to: FileType) -> PathBuf {
    match pattern.to_str() {
        Some(name) => name.replace("{type}", to.name()).into(),
        None => pattern.to_owned(),
    }
}

/// The best type that fits, with what is to be said of it.
fn best<'a>(
    args: &Convert,
    input: &'a Input,
    limit: u64,
    has_matrix: bool,
) -> Result<(Conversion<'a>, FileType, String), Error> {
    let best = budget::best(input, &args.overrides, limit, has_matrix)?;
    let mut said = format!(
        "{}: {} of {}; expected loss: {}\n",
        best.to,
        table::bytes(best.conversion.file_size()),
        table::bytes(limit),
        loss(best.to)
    );
    if let Some(to) = best.with_matrix {
        said += &format!(
            "note: with an importance matrix (--imatrix) {to} fits: {}\n",
            loss(to)
        );
    }
    Ok((best.conversion, best.to, said))
}

fn loss(to: FileType) -> String {
    let kl = to.divergence().unwrap_or(f64::NAN);
    format!("mean KL {kl:.4} where it was measured, on deltad's demo model")
}

fn bits_per_weight(conversion: &Conversion<'_>) -> f64 {
    let bytes: u64 = conversion.steps.iter().map(Step::size).sum();
    8.0 * bytes as f64 / conversion.values() as f64
}

/// Everything that is not as asked for.
fn remarks(conversion: &Conversion<'_>, imatrix: Option<&Imatrix>) -> Result<(), Error> {
    for note in &conversion.notes {
        stdio::remark(format_args!("note: {note}"));
    }
    for step in &conversion.steps {
        if let Some(note) = note(conversion, step, imatrix)? {
            let name = &step.spec.name;
            stdio::remark(format_args!("note: {name}: {}: {note}", step.ty));
        }
    }
    Ok(())
}

/// Why the type is not the one asked for, and what the importance matrix does not know.
fn note(
    conversion: &Conversion<'_>,
    step: &Step<'_>,
    imatrix: Option<&Imatrix>,
) -> Result<Option<String>, Error> {
    let unknown = match imatrix {
        Some(imatrix) if step.ty.is_quantized() => unknown(imatrix.of(&step.spec)?, step),
        _ => None,
    };
    let missing = match imatrix {
        None if conversion.needs_importance(step) => Some("needs an importance matrix".to_owned()),
        _ => None,
    };
    let unknown = unknown.or(missing);
    let parts: Vec<String> = step.note.clone().into_iter().chain(unknown).collect();
    Ok((!parts.is_empty()).then(|| parts.join("; ")))
}

fn unknown(importance: Option<Importance>, step: &Step<'_>) -> Option<String> {
    let Some(importance) = importance else {
        // Rows of the embedding are looked up, not multiplied.
        let met = step.spec.role != Role::TokenEmbd;
        return met.then(|| "not in the importance matrix".to_owned());
    };
    let (few, none) = importance.scarce();
    (few > 0).then(|| format!("{few} experts saw fewer than {FEW} tokens, {none} of them none"))
}

fn show(conversion: &Conversion<'_>, imatrix: Option<&Imatrix>) -> Result<String, Error> {
    let mut rows = vec![
        ["tensor", "shape", "from", "to", "size", "note"]
            .map(str::to_owned)
            .into(),
    ];
    for step in &conversion.steps {
        rows.push(vec![
            step.spec.name.clone(),
            table::shape(&step.spec.shape),
            step.source.ty.to_string(),
            step.ty.to_string(),
            table::bytes(step.size()),
            note(conversion, step, imatrix)?.unwrap_or_default(),
        ]);
    }
    let mut page = table::of(&rows, &[4]);
    for note in &conversion.notes {
        page += &format!("note: {note}\n");
    }
    page += &format!(
        "{} tensors, {:.1} M weights, {}, {:.2} bits per weight\n",
        conversion.steps.len(),
        conversion.values() as f64 / 1e6,
        table::bytes(conversion.file_size()),
        bits_per_weight(conversion),
    );
    Ok(page)
}
