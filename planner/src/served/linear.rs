//! The little linear algebra that a handful of constants needs.

/// Rows of numbers.
pub(super) type Matrix = Vec<Vec<f64>>;

/// The inverse of a positive definite matrix, by Gauss and Jordan with pivots. A row that is not independent of the
/// others becomes zero: what it is of has no say.
pub(super) fn inverse(matrix: &Matrix) -> Matrix {
    let n = matrix.len();
    let mut rows: Matrix = matrix
        .iter()
        .enumerate()
        .map(|(place, row)| {
            row.iter().copied().chain((0..n).map(|i| f64::from(u8::from(i == place)))).collect()
        })
        .collect();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let head = rows[column][column];
        if head.abs() < 1e-300 {
            rows[column].iter_mut().for_each(|value| *value = 0.0);
            continue;
        }
        rows[column].iter_mut().for_each(|value| *value /= head);
        let pivot = rows[column].clone();
        for (other, row) in rows.iter_mut().enumerate() {
            if other != column {
                let factor = row[column];
                row.iter_mut().zip(&pivot).for_each(|(value, head)| *value -= factor * head);
            }
        }
    }
    rows.into_iter().map(|row| row[n..].to_vec()).collect()
}

/// The product of two matrices.
pub(super) fn product(left: &Matrix, right: &Matrix) -> Matrix {
    let columns = right.first().map_or(0, Vec::len);
    let cell = |row: &[f64], column: usize| row.iter().zip(right).map(|(a, other)| a * other[column]).sum();
    left.iter().map(|row| (0..columns).map(|column| cell(row, column)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_the_identity() {
        let matrix = vec![vec![4.0, 1.0, 0.5], vec![1.0, 3.0, -1.0], vec![0.5, -1.0, 5.0]];
        let identity = product(&matrix, &inverse(&matrix));
        for (i, row) in identity.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                assert!((value - f64::from(u8::from(i == j))).abs() < 1e-12, "{identity:?}");
            }
        }
    }
}
