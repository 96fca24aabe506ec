//! Standard output and standard error of both programs. Whoever reads them may leave before the end,
//! as `head` does: that is an error to hand up, never a panic, and a quiet end of the command.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// At once, without a line's end.
pub fn print(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

pub fn line(text: impl Display) -> io::Result<()> {
    print(format_args!("{text}\n"))
}

/// A line on standard error. Where nobody reads that any more, there is nobody to tell.
pub fn remark(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The same without the line's end.
pub fn whisper(text: impl Display) {
    let _ = write!(io::stderr(), "{text}");
}

/// Nobody reads our output any more, which is their choice and no fault.
pub fn is_closed(e: &io::Error) -> bool {
    e.kind() == ErrorKind::BrokenPipe
}
