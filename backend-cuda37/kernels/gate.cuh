// The activations of a gate, times the up projection.
#pragma once
#include "common.cuh"

enum Gate { NO_GATE = 0, SILU = 1, GELU_TANH = 2, SWIGLU_OAI = 3 };

__device__ __forceinline__ float logistic(float z) { return 1.0f / (1.0f + __expf(-z)); }

// g/(1 + e^−g)·u.
__device__ __forceinline__ float silu(float g, float u) { return g * logistic(g) * u; }

// ½g(1 + tanh(√(2/π)(g + 0.044715g³)))·u; ½(1 + tanh z) is logistic(2z), where nothing cancels.
__device__ __forceinline__ float gelu_tanh(float g, float u) {
    return g * logistic(1.5957691216f * (g + 0.044715f * g * g * g)) * u;
}

// g′/(1 + e^(−α·g′))·(u′ + 1), g′ = min(g, limit), u′ = clamp(u, ±limit).
__device__ __forceinline__ float swiglu_oai(float g, float u, float alpha, float limit) {
    g = fminf(g, limit);
    u = fminf(fmaxf(u, -limit), limit);
    return g * logistic(alpha * g) * (u + 1.0f);
}

__device__ __forceinline__ float gated(uint32_t gate, float g, float u, float alpha, float limit) {
    return gate == SILU ? silu(g, u) : gate == GELU_TANH ? gelu_tanh(g, u) : swiglu_oai(g, u, alpha, limit);
}
