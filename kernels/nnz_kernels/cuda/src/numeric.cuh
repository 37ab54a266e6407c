// Functions of one number. NaN passes through all of them.
#pragma once
#include "prims.cuh"

// In the order of nnz_kernels.api.pointwise.UNARY_KINDS.
enum Unary {
  IDENTITY, RELU, CLIP, LEAKY_RELU, SIGMOID, TANH, ERF, GELU, GELU_TANH, EXP, LOG, SQRT,
  NEG, ABS, RECIPROCAL, HARD_SIGMOID, HARD_SWISH, SILU
};

__device__ __forceinline__ float clamped(float x, float lo, float hi) {
  return x < lo ? lo : (x > hi ? hi : x);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float gelu(float x) {
  return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}

__device__ __forceinline__ float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
}

__device__ __forceinline__ float hard_swish(float x) {
  return x * clamped(x * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f);
}

// What a layer may end in: IDENTITY, GELU, GELU_TANH, HARD_SWISH or SILU.
__device__ __forceinline__ float activated(int kind, float x) {
  switch (kind) {
    case GELU: return gelu(x);
    case GELU_TANH: return gelu_tanh(x);
    case HARD_SWISH: return hard_swish(x);
    case SILU: return x * sigmoid(x);
    default: return x;
  }
}

__device__ __forceinline__ float unary_value(int kind, float x, float alpha, float beta) {
  switch (kind) {
    case RELU: return x < 0.0f ? 0.0f : x;
    case CLIP: return clamped(x, alpha, beta);
    case LEAKY_RELU: return x < 0.0f ? alpha * x : x;
    case SIGMOID: return sigmoid(x);
    case TANH: return tanhf(x);
    case ERF: return erff(x);
    case EXP: return expf(x);
    case LOG: return logf(x);
    case SQRT: return sqrtf(x);
    case NEG: return -x;
    case ABS: return fabsf(x);
    case RECIPROCAL: return 1.0f / x;
    case HARD_SIGMOID: return clamped(alpha * x + beta, 0.0f, 1.0f);
    default: return activated(kind, x);
  }
}

// The larger and the smaller of two numbers, NaN if one is.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }
__device__ __forceinline__ float smaller(float a, float b) { return a < b || a != a ? a : b; }
