// Causal attention over paged keys and values (MODELS.md 2.5), and the rotary embedding before it.
//
// Keys and values live in pages of `page_tokens` tokens: page p of a layer is the dense block
// [page_tokens, kv_heads, head_dim] at base + p * page_stride. Sequence i's pages are
// pages[page_start[i] .. page_start[i+1]) in token order. Softmax and sums run over keys in
// ascending position in float32, so results do not depend on the split into launches.
#pragma once

#include "kernels/launch.h"

namespace anabranch::kernels {

struct PagedKv {
  DType dtype = DType::kFloat32;
  void* keys = nullptr;
  void* values = nullptr;
  int64_t page_stride = 0;  // elements between pages
  int32_t page_tokens = 256;
  const int32_t* pages = nullptr;
  const int32_t* page_start = nullptr;  // [num_seqs + 1]
};

struct AttentionParams {
  PackedRows rows;
  const int64_t* position =
      nullptr;  // [num_seqs]: tokens of the sequence before its first row here
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;
  ConstActs q;  // [rows, heads * head_dim]
  ConstActs k;  // [rows, kv_heads * head_dim]; appended to the cache first
  ConstActs v;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  PagedKv kv;  // must have room for every new position
  Acts y;      // [rows, heads * head_dim]
  int64_t y_stride = 0;
  float* scratch = nullptr;    // AttentionScratch() floats; not used on CUDA
  int64_t max_context = 0;     // no context is longer, new rows included; only CUDA needs it
  bool round_to_bf16 = false;  // probabilities before the value product, and the output
};

// Floats of scratch for `rows` rows whose longest context (new rows included) is max_context.
int64_t AttentionScratch(const AttentionParams& params, int64_t max_context);
absl::Status Attention(const AttentionParams& params, const Launch& launch);

// Rotates the first `rotary_dim` channels of each head in place, half-split (NeoX) pairs.
struct RopeParams {
  PackedRows rows;
  const int64_t* position = nullptr;  // [num_seqs]
  int32_t heads = 0, head_dim = 0, rotary_dim = 0;
  double theta = 10000;
  Acts x;  // [rows, heads * head_dim]
  int64_t x_stride = 0;
  bool round_to_bf16 = false;
};
absl::Status Rope(const RopeParams& params, const Launch& launch);

}  // namespace anabranch::kernels
