//! The interfaces, as the bus calls them. Each says who may, and leaves the work to others.

pub mod description;
pub mod generation;
pub mod manager;
pub mod objects;
pub mod session;
