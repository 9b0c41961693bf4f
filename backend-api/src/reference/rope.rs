//! Rotary position embedding (Su et al., "RoFormer", 2021), with frequencies as data.

use super::call::Call;
use crate::{
    error::Result,
    operations::{RopeLayout, word},
};

/// For j < n/2 the entries (u, v), at j and j + n/2 or at 2j and 2j + 1, become m(u·cos a − v·sin a) and
/// m(v·cos a + u·sin a), a = fl32(float(p) · freq_j); entries from n on stay.
pub(super) fn rope(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, positions, freq) = (call.input(0)?, call.input(1)?, call.input(2)?.row_f32([0; 3])?);
    let layout = call.choice(word::rope::LAYOUT, RopeLayout::from_word)?;
    let half = freq.len();
    let m = call.number(word::rope::MAGNITUDE);
    call.by_row(|[h, t, _]| {
        let (mut y, p) = (x.row([h, t, 0])?, positions.id(t, [0; 3])?);
        for (j, freq) in freq.iter().enumerate() {
            let (i, k) = match layout {
                RopeLayout::Halves => (j, j + half),
                RopeLayout::Pairs => (2 * j, 2 * j + 1),
            };
            let (sin, cos) = f64::from(p as f32 * freq).sin_cos();
            (y[i], y[k]) = (m * (y[i] * cos - y[k] * sin), m * (y[k] * cos + y[i] * sin));
        }
        Ok(y)
    })
}
