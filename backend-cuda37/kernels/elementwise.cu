// Values by themselves.
#include "common.cuh"

struct AddArgs {
    View a, b, y;
    float alpha, beta;
};
static_assert(sizeof(AddArgs) == 176, "as on the host's side");

// α·(a + β·b): a thread takes one value along x; blocks along y are the rows.
KERNEL(elementwise_add, AddArgs) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (i >= a.y.dims[0]) return;
    float left = element(row_of<float>(a.a, a.y.dims, row), a.a, i);
    float right = element(row_of<float>(a.b, a.y.dims, row), a.b, i);
    element(row_of<float>(a.y, a.y.dims, row), a.y, i) = a.alpha * (left + a.beta * right);
}
