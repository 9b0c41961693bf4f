// Rows of a table of f32 whose elements do not lie side by side: a thread an element of row blockIdx.y + n·gridDim.y.
#include "rows.cuh"

KERNEL(rows_strided, RowsArgs) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.y.dims[0]) return;
    uint32_t rows = a.y.dims[1] * a.y.dims[2] * a.y.dims[3];
    for (uint32_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const float *from = row_at<const float>(a.table, row_by_id(a, row));
        row_of<float>(a.y, a.y.dims, row)[i] = __fmul_rn(a.scale, element(from, a.table, i));
    }
}
