//! Rows of cells, aligned for a terminal or in Markdown. Knows not what they say.

pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Every row has as many cells as the head.
    pub fn new(head: &[&str], mut rows: Vec<Vec<String>>) -> Table {
        rows.insert(0, head.iter().map(|&cell| cell.to_owned()).collect());
        Table { rows }
    }

    pub fn to_text(&self) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let (first, rest) = (&row[0], row[1..].iter().zip(&widths[1..]));
            let rest: String = rest
                .map(|(cell, &width)| format!("  {cell:>width$}"))
                .collect();
            let line = format!("{first:0$}{rest}", widths[0]);
            text += line.trim_end();
            text += "\n";
        }
        text
    }

    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = "|---".repeat(self.rows[0].len()) + "|\n";
        let rest = self.rows[1..].iter().map(|row| line(row));
        line(&self.rows[0]) + &rule + &rest.collect::<String>()
    }
}
