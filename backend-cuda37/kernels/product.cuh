// What the products share: their argument, which rows a block has, where results go.
#pragma once
#include "chunks.cuh"
#include "gate.cuh"

struct Matrix {
    uint64_t weights, bias; // bias: 0 where there is none
    int64_t row_stride, expert_stride, bias_stride, bias_expert_stride;
    uint32_t rows, first; // rows; where they begin in the output
};

// Columns are tokens, or, for experts, pairs of a token and a slot; `pairs` has their order by expert where they are many.
struct ProductArgs {
    Matrix matrices[4];
    uint64_t x, y, residual, ids, pairs;
    int64_t x_stride, x_slot_stride, y_stride, y_slot_stride, residual_stride, ids_stride, ids_slot_stride;
    uint32_t k, columns, slots, matrix_count;
    uint32_t experts, gate;
    float alpha, limit;
};
static_assert(sizeof(ProductArgs) == 4 * 56 + 12 * 8 + 32, "as on the host's side");

// A run of columns that have one expert: the work of a block of the product of many columns.
struct ExpertTile {
    int32_t expert;
    uint32_t first, count;
};

// A column of the step: token and slot.
struct Column {
    uint32_t token, slot;
    __device__ __forceinline__ Column(const ProductArgs &a, uint32_t number)
        : token(a.slots == 1 ? number : number / a.slots), slot(a.slots == 1 ? 0 : number % a.slots) {}
    __device__ __forceinline__ const float *x(const ProductArgs &a) const {
        return reinterpret_cast<const float *>(a.x + token * a.x_stride + slot * a.x_slot_stride);
    }
    __device__ __forceinline__ float *y(const ProductArgs &a) const {
        return reinterpret_cast<float *>(a.y + token * a.y_stride + slot * a.y_slot_stride);
    }
    __device__ __forceinline__ int32_t expert(const ProductArgs &a) const {
        if (!a.ids) return 0;
        return *reinterpret_cast<const int32_t *>(a.ids + token * a.ids_stride + slot * a.ids_slot_stride);
    }
};

// The rows of a block: `count` rows from `first` of a matrix; with a gate, of two.
struct BlockRows {
    uint32_t matrix, first;
    // The block's place among blocks that have `rows` rows each.
    __device__ __forceinline__ BlockRows(const ProductArgs &a, uint32_t block, uint32_t rows) : matrix(0) {
        if (!a.gate)
            while (matrix + 1 < a.matrix_count && block >= ceil_div(a.matrices[matrix].rows, rows))
                block -= ceil_div(a.matrices[matrix++].rows, rows);
        first = block * rows;
    }
};

__device__ __forceinline__ float bias_of(const Matrix &m, uint32_t row, int32_t expert) {
    return m.bias ? *reinterpret_cast<const float *>(m.bias + row * m.bias_stride + expert * m.bias_expert_stride) : 0.0f;
}

// Writes row `row` of matrix `matrix` for a column, or, with a gate, of both, `sum` and `up` being what the weights gave.
__device__ __forceinline__ void finish(const ProductArgs &a, uint32_t matrix, uint32_t row, Column column, int32_t expert,
                                       float sum, float up) {
    const Matrix &m = a.matrices[matrix];
    float v = sum + bias_of(m, row, expert);
    if (a.gate) v = gated(a.gate, v, up + bias_of(a.matrices[1], row, expert), a.alpha, a.limit);
    if (a.residual) v += reinterpret_cast<const float *>(a.residual + column.token * a.residual_stride)[m.first + row];
    column.y(a)[m.first + row] = v;
}
