//! A step of `AdamW` and the norm of gradients on a GPU, each in one pass over memory and for a
//! group of parameters at a time: there are hundreds, and to ask for something takes the host
//! longer than the device needs for it.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, ExtensionType, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::term::Term;

/// The tensors of a [`Group`].
pub const GROUP: usize = 8;
/// Parts that squares are summed up in, as many for each tensor of a group.
pub const SLOTS: usize = 64 * GROUP;

/// The numbers of one step, the same for all parameters.
#[derive(Clone, Copy, Debug)]
pub struct AdamNumbers {
    /// What gradients are multiplied by first.
    pub gradient_factor: f32,
    /// What parameters are multiplied by.
    pub shrink: f32,
    /// By how much the mean of gradients moves.
    pub first_share: f32,
    /// How much of the mean of squares stays.
    pub beta2: f32,
    /// By how much the mean of squares moves.
    pub second_share: f32,
    /// What the root of the mean of squares is divided by.
    pub root_correction: f32,
    /// Added to that root.
    pub eps: f32,
    /// The step along the mean of gradients.
    pub rate: f32,
}

/// Tensors that are asked for together; operations of backends take no lists.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cuda"))]
pub struct Group<B: Backend> {
    pub t0: FloatTensor<B>,
    pub t1: FloatTensor<B>,
    pub t2: FloatTensor<B>,
    pub t3: FloatTensor<B>,
    pub t4: FloatTensor<B>,
    pub t5: FloatTensor<B>,
    pub t6: FloatTensor<B>,
    pub t7: FloatTensor<B>,
}

impl<B: Backend> Group<B> {
    /// Of all its tensors.
    pub fn of([t0, t1, t2, t3, t4, t5, t6, t7]: [FloatTensor<B>; GROUP]) -> Self {
        Self { t0, t1, t2, t3, t4, t5, t6, t7 }
    }

    /// Its tensors, taken out.
    pub fn into_all(self) -> [FloatTensor<B>; GROUP] {
        let Self { t0, t1, t2, t3, t4, t5, t6, t7 } = self;
        [t0, t1, t2, t3, t4, t5, t6, t7]
    }

    /// All its tensors.
    pub fn all(&self) -> [&FloatTensor<B>; GROUP] {
        let Self { t0, t1, t2, t3, t4, t5, t6, t7 } = self;
        [t0, t1, t2, t3, t4, t5, t6, t7]
    }
}

/// Parameter, gradient and both moments in f32 to parameter and both moments, for each parameter.
/// Tensors that nobody else holds are written where they lie.
pub fn adam_step(params: Vec<[Tensor<1>; 4]>, numbers: AdamNumbers) -> Vec<[Tensor<1>; 3]> {
    let mut made = Vec::with_capacity(params.len());
    let mut params = params.into_iter().map(|p| p.map(Tensor::into_dispatch));
    loop {
        match <[_; GROUP]>::try_from(params.by_ref().take(GROUP).collect::<Vec<_>>()) {
            Ok(group) => {
                let [params, gradients, first, second] = transposed(group).map(Group::of);
                let (params, first, second) =
                    Dispatch::adam_steps(params, gradients, first, second, numbers);
                let tensors = transposed([params, first, second].map(Group::into_all));
                made.extend(tensors.map(|p| p.map(Tensor::from_dispatch)));
            }
            Err(rest) => {
                made.extend(rest.into_iter().map(|[param, gradient, first, second]| {
                    let stepped: [_; 3] =
                        Dispatch::adam_step(param, gradient, first, second, numbers).into();
                    stepped.map(Tensor::from_dispatch)
                }));
                return made;
            }
        }
    }
}

/// The sum of the squares of all values of tensors in f32, if there are any.
pub fn sum_of_squares(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    let device = tensors.first()?.device();
    let (groups, rest) = tensors.as_chunks::<GROUP>();
    let squares = rest.iter().map(|x| (x.clone() * x.clone()).sum());
    let grouped = (!groups.is_empty()).then(|| {
        let nothing = Tensor::<1>::zeros([SLOTS], &device).into_dispatch();
        let sums = groups.iter().fold(nothing, |sums, group| {
            let of = group.each_ref().map(|x| x.clone().into_dispatch());
            Dispatch::squares_onto(sums, Group::of(of))
        });
        Tensor::<1>::from_dispatch(sums).sum()
    });
    grouped.into_iter().chain(squares).reduce(|a, b| a + b)
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait Adam: Backend {
    /// See [`adam_step`], of one parameter.
    #[fusion(meta = |param, _, first, second, _| (param.clone(), first.clone(), second.clone()))]
    fn adam_step(
        param: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        numbers: AdamNumbers,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        stepped::<Self>([&param, &gradient, &first, &second], numbers).into()
    }

    /// See [`adam_step`].
    #[fusion(meta = |params, _, first, second, _| (params.clone(), first.clone(), second.clone()))]
    fn adam_steps(
        #[extension_type] params: Group<Self>,
        #[extension_type] gradients: Group<Self>,
        #[extension_type] first: Group<Self>,
        #[extension_type] second: Group<Self>,
        numbers: AdamNumbers,
    ) -> (Group<Self>, Group<Self>, Group<Self>) {
        let tensors = side_by_side([&params, &gradients, &first, &second]);
        groups_of(tensors.map(|tensors| stepped::<Self>(tensors, numbers)))
    }

    /// Sums in slots, and the squares of a group's values, whose sum over all slots counts alone.
    #[fusion(dtype = before, shape = before)]
    fn squares_onto(
        before: FloatTensor<Self>,
        #[extension_type] of: Group<Self>,
    ) -> FloatTensor<Self> {
        added_squares::<Self>(before, &of)
    }
}

impl Adam for Flex {}

impl<B: Adam, C: CheckpointStrategy> Adam for Autodiff<B, C> {}

/// Groups of several parts as the parts of each place.
pub(super) fn side_by_side<B: Backend, const N: usize>(
    groups: [&Group<B>; N],
) -> [[&FloatTensor<B>; N]; GROUP] {
    transposed(groups.map(Group::all))
}

/// The way back.
pub(super) fn groups_of<B: Backend>(
    places: [[FloatTensor<B>; 3]; GROUP],
) -> (Group<B>, Group<B>, Group<B>) {
    transposed(places).map(Group::of).into()
}

fn transposed<T, const ROWS: usize, const COLUMNS: usize>(
    rows: [[T; COLUMNS]; ROWS],
) -> [[T; ROWS]; COLUMNS] {
    let mut rows = rows.map(IntoIterator::into_iter);
    std::array::from_fn(|_| {
        rows.each_mut().map(|row| row.next().expect("a row has one value for each column"))
    })
}

/// A step by a backend's own operations.
pub(super) fn stepped<B: Backend>(
    tensors: [&FloatTensor<B>; 4],
    numbers: AdamNumbers,
) -> [FloatTensor<B>; 3] {
    let [param, gradient, first, second] = tensors.map(Term::<B>::of);
    let gradient = gradient.times(numbers.gradient_factor.into());
    let first = first.clone() + (gradient.clone() - first).times(numbers.first_share.into());
    let squares = (gradient.clone() * gradient).times(numbers.second_share.into());
    let second = second.times(numbers.beta2.into()) + squares;
    let correction = second.clone().sqrt().over(numbers.root_correction.into());
    let slope = first.clone() * correction.plus(numbers.eps.into()).recip();
    let param = param.times(numbers.shrink.into()) - slope.times(numbers.rate.into());
    let [of_param, _, of_first, of_second] = tensors;
    [param.into_type_of(of_param), first.into_type_of(of_first), second.into_type_of(of_second)]
}

/// Squares by a backend's own operations, spread over all slots: their number is a power of two, so
/// that nothing is rounded by it.
pub(super) fn added_squares<B: Backend>(before: FloatTensor<B>, of: &Group<B>) -> FloatTensor<B> {
    of.all().into_iter().fold(before, |sums, x| {
        let squares = B::float_sum(B::float_mul(x.clone(), x.clone()));
        let share = B::float_mul_scalar(squares, (1.0 / SLOTS as f64).into());
        let slots = sums.shape();
        B::float_add(sums, B::float_expand(share, slots))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::random, *};

    #[test]
    fn parameters_are_stepped_alike_alone_and_in_groups() {
        let numbers = AdamNumbers {
            gradient_factor: 0.7,
            shrink: 0.999,
            first_share: 0.1,
            beta2: 0.95,
            second_share: 0.05,
            root_correction: 0.3,
            eps: 1e-8,
            rate: 0.01,
        };
        // Two groups and a rest, no two parameters of one size.
        let params: Vec<[Tensor<1>; 4]> =
            (0..2 * GROUP + 3).map(|i| [(); 4].map(|()| random([i + 5]).abs())).collect();
        let together = adam_step(params.clone(), numbers);
        assert_eq!(together.len(), params.len());
        for (param, together) in params.into_iter().zip(together) {
            let [alone] = <[_; 1]>::try_from(adam_step(vec![param], numbers)).unwrap();
            for (alone, together) in alone.into_iter().zip(together) {
                assert_eq!(alone.into_data(), together.into_data());
            }
        }
    }

    #[test]
    fn squares_are_summed_over_groups_and_what_is_left_over() {
        for count in [1, GROUP, 3 * GROUP + 2] {
            let tensors: Vec<Tensor<1>> = (0..count).map(|i| random([100 * i + 7])).collect();
            let values = tensors.iter().flat_map(|x| x.to_data().try_to_vec::<f32>().unwrap());
            let wanted: f64 = values.map(|x| f64::from(x).powi(2)).sum();
            let found = f64::from(sum_of_squares(&tensors).unwrap().into_scalar::<f32>());
            assert!((found / wanted - 1.0).abs() < 1e-5, "{count}: {found} {wanted}");
        }
        assert!(sum_of_squares(&[]).is_none());
    }
}
