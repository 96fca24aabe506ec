//! Device, streams, memory and graphs, over the driver's own interface.
