//! A report for people: text for a terminal, Markdown for a document.

use super::report::{Ceilings, Figure, Kernel, Rate, Report, Share};
use super::table::Table;

/// Cores of others that are worth a word.
const NOTICED: f64 = 0.1;

/// Columns aligned by spaces, the first ones to the left.
pub fn text(report: &Report) -> String {
    page(report, &|table| table.to_text())
}

pub fn markdown(report: &Report) -> String {
    page(report, &|table| table.to_markdown())
}

fn page(report: &Report, show: &dyn Fn(&Table) -> String) -> String {
    let mut page = heading(report) + "\n";
    if !report.figures.is_empty() {
        page += &show(&speeds(&report.figures));
    }
    if !report.doublings.is_empty() {
        page += &show(&doublings(report));
    }
    page += "\n";
    let others = report.figures.iter().map(|f| f.others);
    let others = others.fold(0.0, f64::max);
    if others > NOTICED {
        page += &format!(
            "Other programs had up to {others:.2} cores meanwhile: these speeds are of that company.\n"
        );
    }
    page += &memory(report);
    page += &ceilings(report);
    for figure in &report.figures {
        if let Some(shares) = &figure.profile {
            page += &format!("\n{}\n\n", title(figure));
            page += &show(&profile(figure, shares, report));
            page += &limit(figure);
            if !figure.kernels.is_empty() {
                page += "\nBy kernel, each timed alone:\n\n";
                page += &show(&kernels(&figure.kernels));
            }
        } else if report.ceilings.is_some() {
            page += &format!(
                "\n{}: its executor does not tell kinds of work apart.\n",
                title(figure)
            );
        }
    }
    page
}

fn heading(report: &Report) -> String {
    let s = &report.setting;
    let gigabytes = s.file_bytes as f64 / 1e9;
    let mut text = format!(
        "{}, {gigabytes:.2} GB, on {} of {} with {} threads, cache {}.\n",
        s.model, s.device, s.processor, s.threads, s.cache_type
    );
    if !report.figures.is_empty() {
        text += &format!(
            "Tokens/s: median of {} (least to most); {} tokens read, {} decoded by each lane.\n",
            s.repeats, s.prompt, s.tokens
        );
        if s.laid {
            text += "Depths are laid: rows of a short reading again and again.\n";
        }
    }
    text
}

fn speeds(figures: &[Figure]) -> Table {
    let mut head = vec!["what", "depth", "lanes", "deltad"];
    let has_rival = figures.iter().any(|f| f.rival.is_some());
    if has_rival {
        head.extend(["llama.cpp", "ratio"]);
    }
    let row = |f: &Figure| {
        let mut row = vec![
            f.what.name().to_owned(),
            f.depth.to_string(),
            f.lanes.to_string(),
            f.deltad.to_string(),
        ];
        if has_rival {
            row.push(f.rival.as_ref().map_or_else(String::new, Rate::to_string));
            row.push(f.ratio.map_or_else(String::new, |r| format!("{r:.2}")));
        }
        row
    };
    Table::new(&head, figures.iter().map(row).collect())
}

fn doublings(report: &Report) -> Table {
    let head = [
        "tokens",
        "state, MiB",
        "process, MiB",
        "read, tokens/s",
        "decode, tokens/s",
    ];
    let rows = report.doublings.iter().map(|d| {
        vec![
            d.tokens.to_string(),
            mebibytes(d.state_bytes),
            mebibytes(d.resident_bytes),
            format!("{:.1}", d.read),
            format!("{:.1}", d.decode),
        ]
    });
    Table::new(&head, rows.collect())
}

fn memory(report: &Report) -> String {
    let m = &report.memory;
    let most = mebibytes(m.process);
    if report.figures.is_empty() {
        return format!("Memory: {most} MiB at most, the model's file among it.\n");
    }
    let rival = m
        .rival
        .map_or_else(String::new, |r| format!(", llama.cpp {} MiB", mebibytes(r)));
    format!(
        "Memory beside the model's file, at the largest case: deltad {} MiB{rival}. \
         The process in all, at most: {most} MiB.\n",
        mebibytes(m.deltad)
    )
}

fn title(figure: &Figure) -> String {
    let (what, depth, lanes) = (figure.what.name(), figure.depth, figure.lanes);
    format!("One pass, {what} at {depth}, lanes {lanes}")
}

/// What the machine, or the card, can do at most.
fn ceilings(report: &Report) -> String {
    let Some(ceilings) = &report.ceilings else {
        return String::new();
    };
    let read = billions(ceilings.read);
    let Some(floats) = ceilings.floats else {
        return format!("\nAt most: {read} GB/s by copies within the card, read and written.\n");
    };
    let bytes = ceilings.bytes.map_or_else(String::new, |b| {
        format!(", {} G operations/s on 8-bit integers", billions(b))
    });
    format!(
        "\nAt most, with {} threads: {read} GB/s read from memory, {} GFLOP/s on floats{bytes}.\n",
        report.setting.threads,
        billions(floats),
    )
}

fn limit(figure: &Figure) -> String {
    let Some(limit) = figure.memory_limit else {
        return String::new();
    };
    let share = 100.0 * figure.deltad.median / limit;
    let got = figure.deltad.median;
    let read = figure.read.map_or_else(String::new, |read| {
        format!(
            ", read at {} GB/s in turn with the repeats,",
            billions(read)
        )
    });
    format!(
        "\nThe memory{read} would allow {limit:.1} tokens/s; {got:.1} are {share:.0} % of that.\n"
    )
}

fn profile(figure: &Figure, shares: &[Share], report: &Report) -> Table {
    let ceilings = report.ceilings.as_ref();
    let read = figure.read.or(ceilings.map(|c| c.read)).unwrap_or(0.0);
    let has_products = ceilings.is_none_or(|c| c.floats.is_some());
    let products = |arithmetic: &str| {
        let of = |c: &Ceilings| match arithmetic {
            "f32" => c.floats,
            _ => c.bytes.or(c.floats),
        };
        ceilings.and_then(of).unwrap_or(0.0)
    };
    let percent = |rate: Option<f64>, most: f64| {
        let share = rate.filter(|_| most > 0.0).map(|r| 100.0 * r / most);
        share.map_or_else(String::new, |s| format!("{s:.0} %"))
    };
    let number = |rate: Option<f64>| rate.map_or_else(String::new, billions);
    let mut head = vec!["work", "ms", "share", "GB/s", "of reads", "G op/s"];
    if has_products {
        head.push("of products");
    } else {
        head[4] = "of copies";
    }
    let row = |s: &Share| {
        let mut row = vec![
            s.work.to_owned(),
            format!("{:.3}", s.milliseconds),
            format!("{:.1} %", 100.0 * s.share),
            number(s.bytes_per_second),
            percent(s.bytes_per_second, read),
            number(s.operations_per_second),
        ];
        if has_products {
            row.push(percent(s.operations_per_second, products(s.arithmetic)));
        }
        row
    };
    let mut rows: Vec<_> = shares.iter().map(row).collect();
    let all: f64 = shares.iter().map(|s| s.milliseconds).sum();
    let bytes: f64 = shares.iter().map(Share::bytes).sum();
    let rate = Some(bytes / (all / 1e3)).filter(|_| bytes > 0.0);
    let mut last = vec![String::new(); head.len()];
    (last[0], last[1]) = ("all".into(), format!("{all:.3}"));
    (last[3], last[4]) = (number(rate), percent(rate, read));
    rows.push(last);
    Table::new(&head, rows)
}

fn kernels(kernels: &[Kernel]) -> Table {
    let row = |k: &Kernel| {
        vec![
            k.kernel.to_owned(),
            format!("{:.1}", k.runs),
            format!("{:.1}", k.microseconds),
            format!("{:.1} %", 100.0 * k.share),
        ]
    };
    let head = ["kernel", "runs a pass", "us a pass", "share"];
    Table::new(&head, kernels.iter().map(row).collect())
}

fn billions(rate: f64) -> String {
    format!("{:.1}", rate / 1e9)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}
