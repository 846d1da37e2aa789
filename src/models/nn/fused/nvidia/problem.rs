//! Products and convolutions as the libraries state them.

/// The type of all elements; sums are made in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE single precision, without the shorter mantissa of TF32.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    BF16,
}

/// A stack of matrices in memory: row by row or column by column, evenly apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Matrices.
    pub count: usize,
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub columns: usize,
    /// Whether columns follow each other in memory, rather than rows.
    pub by_column: bool,
    /// Elements from one row, or column, to the next.
    pub leading: usize,
    /// Elements from one matrix to the next.
    pub apart: usize,
}

impl Operand {
    /// The stack over the last two axes, unless its elements are stored in another way.
    pub fn of(shape: &[usize], strides: &[usize]) -> Option<Self> {
        let matrix = shape.len().checked_sub(2)?;
        let [rows, columns] = [shape[matrix], shape[matrix + 1]];
        let (by_column, leading) =
            orientation([rows, columns], [strides[matrix], strides[matrix + 1]])?;
        let (count, apart) = evenly(&shape[..matrix], &strides[..matrix])?;
        Some(Self { count, rows, columns, by_column, leading, apart })
    }
}

/// Whether a matrix is stored by columns, and what lies between two of its rows or columns.
fn orientation([rows, columns]: [usize; 2], [down, right]: [usize; 2]) -> Option<(bool, usize)> {
    if (right == 1 || columns == 1) && (down >= columns || rows == 1) {
        Some((false, if rows == 1 { columns } else { down }))
    } else if (down == 1 || rows == 1) && (right >= rows || columns == 1) {
        Some((true, if columns == 1 { rows } else { right }))
    } else {
        None
    }
}

/// How many matrices there are, and how far apart, if it is the same everywhere.
fn evenly(shape: &[usize], strides: &[usize]) -> Option<(usize, usize)> {
    let mut axes = shape.iter().zip(strides).filter(|(size, _)| **size != 1).rev();
    let Some((size, apart)) = axes.next() else { return Some((1, 0)) };
    let mut count = *size;
    for (size, stride) in axes {
        if *stride != apart * count {
            return None;
        }
        count *= size;
    }
    Some((count, *apart))
}

/// `out = lhs rhs` for each matrix of the stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Of both factors.
    pub element: Element,
    /// Whether the output is in f32, rather than of their type.
    pub wide: bool,
    /// `[M, K]`.
    pub lhs: Operand,
    /// `[K, N]`.
    pub rhs: Operand,
    /// `[M, N]`, by rows.
    pub out: Operand,
}

impl Product {
    /// The product in the type of its factors, if the stacks fit each other and there is anything
    /// to multiply.
    pub fn new(element: Element, lhs: Operand, rhs: Operand, out: Operand) -> Option<Self> {
        let fits = lhs.columns == rhs.rows
            && [out.rows, out.columns] == [lhs.rows, rhs.columns]
            && [lhs.count, rhs.count] == [out.count; 2]
            && !out.by_column;
        let empty = [lhs.count, lhs.rows, lhs.columns, rhs.columns].contains(&0);
        (fits && !empty).then_some(Self { element, wide: false, lhs, rhs, out })
    }

    /// The type of the output.
    #[cfg(feature = "cuda")]
    pub fn made(&self) -> Element {
        if self.wide { Element::F32 } else { self.element }
    }
}

/// A convolution of `[B, C, T, H, W]` by `[out, C, t, h, w]`, all contiguous.
#[cfg(feature = "cuda")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// Of all tensors.
    pub element: Element,
    /// `[B, C, T, H, W]`.
    pub x: [usize; 5],
    /// `[out, C, t, h, w]`.
    pub weight: [usize; 5],
    /// In time and in space.
    pub strides: [usize; 2],
    /// Zeros around each frame.
    pub padding: usize,
    /// `[B, out, T', H', W']`.
    pub out: [usize; 5],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operand(shape: &[usize], strides: &[usize]) -> Option<Operand> {
        Operand::of(shape, strides)
    }

    #[test]
    fn rows_columns_and_stacks_are_told_by_their_strides() {
        let plain = operand(&[2, 3, 4, 5], &[60, 20, 5, 1]).unwrap();
        let wanted =
            Operand { count: 6, rows: 4, columns: 5, by_column: false, leading: 5, apart: 20 };
        assert_eq!(plain, wanted);
        let transposed = operand(&[6, 5, 4], &[20, 1, 5]).unwrap();
        assert_eq!(transposed, Operand { rows: 5, columns: 4, by_column: true, ..wanted });
        // Rows that begin where the hardware likes it.
        let pitched = operand(&[2, 3, 4, 5], &[96, 32, 8, 1]).unwrap();
        assert_eq!(pitched, Operand { leading: 8, apart: 32, ..wanted });
        // A slice of columns.
        let slice = operand(&[4, 2], &[5, 1]).unwrap();
        assert_eq!([slice.count, slice.leading, slice.apart], [1, 5, 0]);
    }

    #[test]
    fn heads_between_tokens_are_not_evenly_apart() {
        assert_eq!(operand(&[2, 3, 4, 5], &[60, 5, 15, 1]), None);
        // Those of one sequence are.
        let heads = operand(&[1, 3, 4, 5], &[60, 5, 15, 1]).unwrap();
        assert_eq!([heads.count, heads.leading, heads.apart], [3, 15, 5]);
    }

    #[test]
    fn vectors_are_matrices() {
        let row = operand(&[1, 5], &[1, 1]).unwrap();
        assert_eq!((row.by_column, row.leading), (false, 5));
        let column = operand(&[5, 1], &[1, 1]).unwrap();
        assert_eq!((column.by_column, column.leading), (false, 1));
        // Every second element of a row.
        assert_eq!(operand(&[3, 5], &[10, 2]), None);
        // An axis that repeats what it has.
        assert_eq!(operand(&[3, 5], &[0, 1]), None);
    }

    #[test]
    fn what_does_not_fit_is_no_product() {
        let of = |shape: [usize; 3]| operand(&shape, &[shape[1] * shape[2], shape[2], 1]).unwrap();
        let product = |lhs, rhs, out| {
            let [a, b, c] = [Element::F32, Element::F16, Element::BF16]
                .map(|element| Product::new(element, of(lhs), of(rhs), of(out)).is_some());
            assert_eq!([a, b], [c; 2]);
            c
        };
        assert!(product([2, 3, 4], [2, 4, 5], [2, 3, 5]));
        assert!(!product([2, 3, 4], [2, 3, 5], [2, 3, 5]));
        assert!(!product([2, 3, 4], [1, 4, 5], [2, 3, 5]));
        assert!(!product([2, 0, 4], [2, 4, 5], [2, 0, 5]));
    }
}
