//! `torch.Generator("cpu")`: the same seed gives the same numbers.

/// A Mersenne Twister that draws as PyTorch's CPU generator does.
#[derive(Clone, Debug)]
pub struct TorchRng {
    state: u64,
}

impl TorchRng {
    /// `torch.Generator("cpu").manual_seed(seed)`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// `torch.rand(len)`: uniform in [0, 1).
    pub fn uniform(&mut self, len: usize) -> Vec<f32> {
        todo!("{len} {}", self.state)
    }

    /// `torch.randn(len)` in f32, bit for bit.
    pub fn normal(&mut self, len: usize) -> Vec<f32> {
        todo!("{len} {}", self.state)
    }
}
