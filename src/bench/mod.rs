//! `deltad bench`: how fast a model is here.
//!
//! | file | job |
//! |---|---|
//! | `report` | the figures as data, and as JSON |
//! | `page`, `picture` | the same as text or Markdown, and as SVG |

pub mod page;
pub mod picture;
pub mod report;
#[cfg(test)]
mod tests;
