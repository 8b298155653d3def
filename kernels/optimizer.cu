// One step of an optimiser for many tensors in one launch: SGD, Adam, AdamW, RAdam, and Lookahead around any. Rules:
// src/nn/optim/rule.rs.
//
// Tensors by multi_tensor.cuh, 16 bytes a thread and access; every network here is one launch.
// State lies as on the CPU: pieces of PIECE weights, in each one slot after the other.
// Moves, a weight: 16 to 28 bytes (weight and moments there and back, gradient; the slow copy when it is due).
//
// A faster one would keep the moments in 16 bits, or take gradients where they are made.

#include "multi_tensor.cuh"

constexpr uint64_t PIECE = 1 << 14; // `PIECE` in src/ops/mod.rs

struct Entry {
    float* value;          // [length]
    const float* gradient; // [length]
    float* state;          // [length·slots]
    uint64_t length;
    uint32_t first_block;
    uint32_t group; // which of the two learning rates
};

struct Table {
    Entry entries[TENSORS];
    const float* guard; // null, or [1]: unless it is finite nothing is done
    uint32_t count;
    uint32_t rule;      // 0 SGD, 1 Adam, 2 RAdam
    uint32_t slots;     // numbers a weight remembers
    uint32_t lookahead; // 0: none or not due; 1: the slow copy is made; 2: weights and slow copy meet
    float alpha;        // share of the way that Lookahead keeps
    float first, second;         // momentum, or decay rates of the moments
    float first_new, second_new; // what a new gradient weighs in the moments
    float added_decay;  // times the weight, added to the gradient
    float epsilon;
    float adaptive;     // divide by the root of the second moment (RAdam)
    float size[2];      // of the step
    float shrink[2];    // of the weight (decoupled decay)
    float correction[2]; // of the root of the second moment
};

extern "C" __global__ void __launch_bounds__(THREADS) optimizer_step(const __grid_constant__ Table table) {
    if (table.guard != nullptr && !isfinite(*table.guard)) return;
    const Entry& entry = table.entries[own_tensor(table.entries, table.count)];
    const float size = table.size[entry.group], shrink = table.shrink[entry.group];
    const float correction = table.correction[entry.group];
    const uint64_t start = (uint64_t)(blockIdx.x - entry.first_block) * CHUNK, end = min(start + CHUNK, entry.length);
    const uint64_t piece = start / PIECE * PIECE, in_piece = min(PIECE, entry.length - piece);
    float* const state = entry.state + piece * table.slots;
    for (uint64_t at = start + 4 * threadIdx.x; at < end; at += 4 * THREADS) {
        const uint32_t count = (uint32_t)min(end - at, (uint64_t)4);
        float* const first_at = state + (at - piece);
        float* const second_at = first_at + in_piece;
        Four w = load_four(entry.value + at, count), g = load_four(entry.gradient + at, count);
        Four m = load_four(first_at, count), v{};
        if (table.rule != 0) v = load_four(second_at, count);
        for (int k = 0; k < 4; k++) {
            if (table.rule == 0) {
                m.v[k] = table.first * m.v[k] + g.v[k] + table.added_decay * w.v[k];
                w.v[k] -= size * m.v[k];
                continue;
            }
            const float slope = g.v[k] + table.added_decay * w.v[k];
            m.v[k] = table.first * m.v[k] + table.first_new * slope;
            v.v[k] = table.second * v.v[k] + table.second_new * slope * slope;
            const float move = size * m.v[k];
            const bool divides = table.rule == 1 || table.adaptive != 0.0f;
            w.v[k] = w.v[k] * shrink - (divides ? move / (sqrtf(v.v[k]) * correction + table.epsilon) : move);
        }
        store_four(first_at, m, count);
        if (table.rule != 0) store_four(second_at, v, count);
        if (table.lookahead != 0) {
            float* const slow_at = first_at + (table.slots - 1) * in_piece;
            if (table.lookahead == 2) {
                const Four slow = load_four(slow_at, count);
                for (int k = 0; k < 4; k++) w.v[k] = slow.v[k] + (w.v[k] - slow.v[k]) * table.alpha;
            }
            store_four(slow_at, w, count);
        }
        store_four(entry.value + at, w, count);
    }
}
