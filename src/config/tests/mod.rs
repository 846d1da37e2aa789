//! What a whole file becomes, and what wrong ones get.

mod errors;
mod expansion;
mod random;
mod schema;
mod toys;
