//! The engine against an independent implementation's numbers (`tests/fixtures/*/golden.safetensors`,
//! made by `tests/fixtures/generate.py` and `generate_ling.py`), and against itself however a text is fed.

mod backends;
mod card;
mod checkpoint;
mod company;
mod device;
mod disk;
mod exactness;
mod forks;
mod host;
mod long;
mod low;
mod measure;
mod meter;
mod recorded;
mod rival;
mod state;
mod stock;
