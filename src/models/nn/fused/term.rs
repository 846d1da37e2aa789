//! Formulas over a backend's own tensors: what passes backward are written in.
//!
//! On GPUs a chain of these is compiled into one kernel as long as nothing but its end is kept. So
//! a formula is given as a closure where it is wanted twice: it is then computed twice and never
//! written down.

use std::ops::{Add, Mul, Sub};

use burn::{
    backend::{Backend, TensorMetadata, tensor::FloatTensor},
    tensor::{FloatDType, Shape, Slice},
};

/// A tensor of any rank in f32.
pub struct Term<B: Backend>(FloatTensor<B>);

impl<B: Backend> Clone for Term<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> Term<B> {
    /// Widens a tensor.
    pub fn of(x: &FloatTensor<B>) -> Self {
        Self(B::float_cast(x.clone(), FloatDType::F32))
    }

    /// As a tensor of the type of `like`.
    pub fn into_type_of(self, like: &FloatTensor<B>) -> FloatTensor<B> {
        B::float_cast(self.0, FloatDType::from(like.dtype()))
    }

    pub fn dims(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    pub fn reshape(self, dims: &[usize]) -> Self {
        Self(B::float_reshape(self.0, Shape::from(dims.to_vec())))
    }

    pub fn mean(self, dim: usize) -> Self {
        Self(B::float_mean_dim(self.0, dim))
    }

    pub fn sum(self, dim: usize) -> Self {
        Self(B::float_sum_dim(self.0, dim))
    }

    pub fn plus(self, scalar: f64) -> Self {
        Self(B::float_add_scalar(self.0, scalar.into()))
    }

    pub fn times(self, scalar: f64) -> Self {
        Self(B::float_mul_scalar(self.0, scalar.into()))
    }

    pub fn over(self, scalar: f64) -> Self {
        Self(B::float_div_scalar(self.0, scalar.into()))
    }

    pub fn sqrt(self) -> Self {
        Self(B::float_sqrt(self.0))
    }

    pub fn recip(self) -> Self {
        Self(B::float_recip(self.0))
    }

    pub fn exp(self) -> Self {
        Self(B::float_exp(self.0))
    }

    /// Place `index` of the middle of three axes.
    pub fn row(&self, index: usize) -> Self {
        let range = Slice::new(index as isize, Some(index as isize + 1), 1);
        Self(B::float_slice(self.0.clone(), &[Slice::full(), range, Slice::full()]))
    }

    /// Zeros or ones beside `self`.
    pub fn constant(&self, dims: &[usize], value: f64) -> Self {
        let device = self.0.device();
        Self(B::float_full(Shape::from(dims.to_vec()), value.into(), &device, FloatDType::F32))
    }

    pub fn cat(terms: Vec<Self>, dim: usize) -> Self {
        Self(B::float_cat(terms.into_iter().map(|term| term.0).collect(), dim))
    }
}

impl<B: Backend> Add for Term<B> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(B::float_add(self.0, other.0))
    }
}

impl<B: Backend> Sub for Term<B> {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(B::float_sub(self.0, other.0))
    }
}

impl<B: Backend> Mul for Term<B> {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self(B::float_mul(self.0, other.0))
    }
}
