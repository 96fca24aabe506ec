//! Aligned columns, and sizes that people can read.

/// Rows as lines with every column as wide as its widest cell; cells are left-aligned unless `right`
/// names their column.
pub fn of(rows: &[Vec<String>], right: &[usize]) -> String {
    let mut lines = String::new();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            if right.contains(&at) {
                line.push_str(&format!("{cell:>width$}  "))
            } else {
                line.push_str(&format!("{cell:<width$}  "))
            }
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..0x10_0000 => format!("{:.1} KiB", n as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", n as f64 / f64::from(1 << 20)),
        _ => format!("{:.2} GiB", n as f64 / f64::from(1 << 30)),
    }
}

/// `[2304, 4096]`, fastest first.
pub fn shape(shape: &[u64]) -> String {
    format!("{shape:?}")
}
