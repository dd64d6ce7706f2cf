//! Small dense linear algebra: symmetric matrices with one row per coefficient of a cost model.

/// Number of coefficients.
pub(super) const N: usize = 4;

pub(super) type Vector = [f64; N];
pub(super) type Matrix = [[f64; N]; N];

pub(super) fn dot(one: &Vector, other: &Vector) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// The quadratic form `xᵀ A x`.
pub(super) fn quadratic(matrix: &Matrix, x: &Vector) -> f64 {
    matrix.iter().zip(x).map(|(row, x_row)| x_row * dot(row, x)).sum()
}

/// Solves `A x = b` for the coefficients in `support`, with the others zero, by Gaussian elimination with pivots on the
/// diagonal, which is stable for positive semidefinite matrices. `None` if a pivot is below `tolerance`.
pub(super) fn solve(matrix: &Matrix, b: &Vector, support: &[usize], tolerance: f64) -> Option<Vector> {
    let (mut a, mut b) = (*matrix, *b);
    let mut open = support.to_vec();
    let mut order = Vec::with_capacity(support.len());
    while let Some(nth) = (0..open.len()).max_by(|one, other| {
        let (one, other) = (open[*one], open[*other]);
        a[one][one].total_cmp(&a[other][other])
    }) {
        let pivot = open.swap_remove(nth);
        if a[pivot][pivot] < tolerance {
            return None;
        }
        for &row in &open {
            let factor = a[row][pivot] / a[pivot][pivot];
            for &column in support {
                a[row][column] -= factor * a[pivot][column];
            }
            b[row] -= factor * b[pivot];
        }
        order.push(pivot);
    }
    let mut x = [0.0; N];
    for (nth, &row) in order.iter().enumerate().rev() {
        let known: f64 = order[nth + 1..]
            .iter()
            .map(|column| a[row][*column] * x[*column])
            .sum();
        x[row] = (b[row] - known) / a[row][row];
    }
    Some(x)
}

/// Eigenvalues and eigenvectors of a symmetric matrix by the cyclic Jacobi method (Golub and Van Loan, "Matrix
/// Computations", section 8.5).
pub(super) fn eigen(matrix: &Matrix) -> [(f64, Vector); N] {
    /// Enough for full precision: the method converges quadratically.
    const SWEEPS: usize = 16;

    let mut a = *matrix;
    // Row k holds the k-th eigenvector.
    let mut vectors: Matrix =
        std::array::from_fn(|row| std::array::from_fn(|column| f64::from(u8::from(row == column))));
    for _ in 0..SWEEPS {
        for p in 0..N {
            for q in p + 1..N {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cosine = t.hypot(1.0).recip();
                let sine = t * cosine;
                for row in &mut a {
                    (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
                }
                rotate_rows(&mut a, p, q, cosine, sine);
                rotate_rows(&mut vectors, p, q, cosine, sine);
            }
        }
    }
    std::array::from_fn(|nth| (a[nth][nth], vectors[nth]))
}

fn rotate_rows(matrix: &mut Matrix, p: usize, q: usize, cosine: f64, sine: f64) {
    let (one, other) = (matrix[p], matrix[q]);
    matrix[p] = std::array::from_fn(|column| cosine * one[column] - sine * other[column]);
    matrix[q] = std::array::from_fn(|column| sine * one[column] + cosine * other[column]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `Σ v vᵀ`, which is positive semidefinite.
    fn gram(vectors: &[Vector]) -> Matrix {
        std::array::from_fn(|row| {
            std::array::from_fn(|column| vectors.iter().map(|vector| vector[row] * vector[column]).sum())
        })
    }

    fn apply(matrix: &Matrix, x: &Vector) -> Vector {
        std::array::from_fn(|row| dot(&matrix[row], x))
    }

    fn vectors() -> impl Strategy<Value = Vec<Vector>> {
        prop::collection::vec(prop::array::uniform4(-1.0..1.0), 1..8)
    }

    proptest! {
        #[test]
        fn eigenvectors_are_orthonormal_and_belong_to_their_eigenvalues(vectors in vectors()) {
            let matrix = gram(&vectors);
            let eigen = eigen(&matrix);
            for (nth, (value, vector)) in eigen.iter().enumerate() {
                for (image, component) in apply(&matrix, vector).iter().zip(vector) {
                    prop_assert!((image - value * component).abs() < 1e-9, "{eigen:?}");
                }
                for (other, (_, other_vector)) in eigen.iter().enumerate() {
                    let expected = if nth == other { 1.0 } else { 0.0 };
                    prop_assert!((dot(vector, other_vector) - expected).abs() < 1e-9);
                }
            }
        }

        #[test]
        fn a_solution_satisfies_the_equations_of_its_support(
            vectors in vectors(),
            b in prop::array::uniform4(-1.0..1.0),
            mask in 1..16_usize,
        ) {
            let matrix = gram(&vectors);
            let support: Vec<usize> = (0..N).filter(|nth| mask >> nth & 1 == 1).collect();
            if let Some(x) = solve(&matrix, &b, &support, 1e-3) {
                let image = apply(&matrix, &x);
                for nth in 0..N {
                    if support.contains(&nth) {
                        prop_assert!((image[nth] - b[nth]).abs() < 1e-6, "{x:?}");
                    } else {
                        prop_assert_eq!(x[nth], 0.0);
                    }
                }
            } else {
                // Fewer vectors than coefficients, or nearly dependent ones.
                prop_assert!(eigen(&matrix).iter().any(|(value, _)| *value < 0.1));
            }
        }
    }
}
