//! Convolutions of any stride as one matrix product per clip.
//!
//! The window of each output place is a column: `y = W col(x)`, `dW = dy col(x)^T`,
//! `dx = fold(W^T dy)`.

use burn::{
    backend::{Flex, ops::FloatTensorOps},
    tensor::TensorData,
};
use rayon::prelude::*;

use super::{
    conv::Window,
    kernels::{Values, slice},
};

/// Bytes of columns per clip up to which this is used: larger layers would be mostly copying.
const MAX_COLUMNS: usize = 256 << 20;

/// All sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub batch: usize,
    pub input: usize,
    pub output: usize,
    pub kernel: [usize; 3],
    pub from: [usize; 3],
    pub to: [usize; 3],
    pub window: Window,
}

impl Geometry {
    pub fn new(x: [usize; 5], weight: [usize; 5], window: Window) -> Self {
        let [batch, input, t, h, w] = x;
        let [output, _, kt, kh, kw] = weight;
        let space = |len: usize, k: usize| (len + 2 * window.padding - k) / window.stride + 1;
        let to = [t - kt + 1, space(h, kh), space(w, kw)];
        Self { batch, input, output, kernel: [kt, kh, kw], from: [t, h, w], to, window }
    }

    /// Values of one window.
    pub fn rows(&self) -> usize {
        self.input * self.kernel.iter().product::<usize>()
    }

    /// Windows of one clip.
    pub fn places(&self) -> usize {
        self.to.iter().product()
    }

    /// Values of one channel of the input.
    pub fn channel(&self) -> usize {
        self.from.iter().product()
    }

    /// For each output row of tap `(kt, kh, kw)`: where it starts in the output and, if it is not
    /// all padding, where its row starts in the input channel.
    fn lines(&self, [kt, kh]: [usize; 2]) -> impl Iterator<Item = (usize, Option<usize>)> + '_ {
        let [out_t, out_h, out_w] = self.to;
        let [_, height, width] = self.from;
        (0..out_t * out_h).map(move |line| {
            let (t, y) = (line / out_h + kt, (line % out_h) * self.window.stride + kh);
            let inside = y.checked_sub(self.window.padding).filter(|y| *y < height);
            (line * out_w, inside.map(|y| (t * height + y) * width))
        })
    }

    /// The outputs `from..to` of a line whose tap at column `kw` lies in the image, and the input
    /// column of the first.
    fn span(&self, kw: usize) -> (usize, usize, usize) {
        let (stride, padding, width) = (self.window.stride, self.window.padding, self.from[2]);
        let first = padding.saturating_sub(kw).div_ceil(stride);
        let last = ((width + padding).saturating_sub(kw)).div_ceil(stride).min(self.to[2]);
        (first.min(last), last, first * stride + kw - padding.min(first * stride + kw))
    }

    fn tap(&self, row: usize) -> (usize, [usize; 3]) {
        let [kt, kh, kw] = self.kernel;
        (row / (kt * kh * kw), [row / (kh * kw) % kt, row / kw % kh, row % kw])
    }

    /// The windows of one clip as columns `[rows, places]`.
    pub fn columns(&self, x: &[f32]) -> Values {
        let mut columns = vec![0.0; self.rows() * self.places()];
        columns.par_chunks_mut(self.places()).enumerate().for_each(|(row, out)| {
            let (channel, [kt, kh, kw]) = self.tap(row);
            let x = &x[channel * self.channel()..][..self.channel()];
            let (first, last, column) = self.span(kw);
            for (start, line) in self.lines([kt, kh]) {
                let Some(line) = line else { continue };
                let out = &mut out[start + first..start + last];
                if self.window.stride == 1 {
                    out.copy_from_slice(&x[line + column..][..last - first]);
                } else {
                    for (out, x) in
                        out.iter_mut().zip(x[line + column..].iter().step_by(self.window.stride))
                    {
                        *out = *x;
                    }
                }
            }
        });
        matrix(columns, self.rows(), self.places())
    }

    /// Adds columns back to the places they were taken from.
    pub fn fold(&self, columns: &[f32], dx: &mut [f32]) {
        let taps: usize = self.kernel.iter().product();
        dx.par_chunks_mut(self.channel()).enumerate().for_each(|(channel, dx)| {
            for row in channel * taps..(channel + 1) * taps {
                let (_, [kt, kh, kw]) = self.tap(row);
                let columns = &columns[row * self.places()..][..self.places()];
                let (first, last, column) = self.span(kw);
                for (start, line) in self.lines([kt, kh]) {
                    let Some(line) = line else { continue };
                    let columns = &columns[start + first..start + last];
                    let dx = dx[line + column..].iter_mut().step_by(self.window.stride);
                    for (dx, value) in dx.zip(columns) {
                        *dx += value;
                    }
                }
            }
        });
    }

    /// Whether the columns of one clip are small enough.
    pub fn fits(&self) -> bool {
        self.rows() * self.places() * size_of::<f32>() <= MAX_COLUMNS
    }
}

pub fn matrix(values: Vec<f32>, rows: usize, columns: usize) -> Values {
    Values::from_data(TensorData::new(values, [rows, columns]))
}

/// The convolution of one clip, without bias, added to `out`.
pub fn forward(geometry: &Geometry, x: &[f32], weight: &Values, out: &mut [f32]) {
    let y = Flex::float_matmul(weight.clone(), geometry.columns(x));
    for (out, y) in out.iter_mut().zip(slice(&y.to_contiguous())) {
        *out += y;
    }
}

/// Adds the gradients of one clip to `dx` and `dw`, which are empty if not wanted.
pub fn backward(
    geometry: &Geometry,
    [x, grad]: [&[f32]; 2],
    transposed: &Values,
    [dx, dw]: [&mut [f32]; 2],
) {
    let grad = matrix(grad.to_vec(), geometry.output, geometry.places());
    if !dw.is_empty() {
        let columns = Flex::float_transpose(geometry.columns(x));
        let part = Flex::float_matmul(grad.clone(), columns).to_contiguous();
        for (dw, part) in dw.iter_mut().zip(slice(&part)) {
            *dw += part;
        }
    }
    if !dx.is_empty() {
        let columns = Flex::float_matmul(transposed.clone(), grad).to_contiguous();
        geometry.fold(slice(&columns), dx);
    }
}
