// The head and its loss in one: logits exist for one chunk of tokens at a time. With gradients on, the chunk's logits turn into
// dlogits at once and give dx (its rows) and dW (accumulated over chunks, fp32) in the forward pass, so that no logits are
// computed twice. Both are kept by the node as gradients for an incoming gradient of 1, which is what a loss gets: then
// backward hands them over as they are (dW becomes the weight's buffer). Any other incoming gradient multiplies them first, and
// a loss that is never used leaves no trace. Price: [T, C] and [V, C] fp32 between forward and backward.
#include "kernels/common/profile.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "src/autograd/ops/op_support.h"

namespace moba::ops {
namespace {

constexpr int64_t kChunkLogits = int64_t{16} << 20;  // elements: 64 MiB of fp32
constexpr int64_t kRowStep = 32;
constexpr int64_t kSparseShare = 8;  // rows are gathered when more than 1/8 of the targets do not count

int64_t chunk_rows(int64_t vocab) { return std::max(kChunkLogits / vocab / kRowStep * kRowStep, kRowStep); }

// Runs [begin, end) of tokens whose targets count.
struct Runs {
  std::vector<std::pair<int64_t, int64_t>> all;
  int64_t tokens = 0;
};

Runs counted_runs(const Tensor& targets) {
  Runs runs;
  const std::vector<int32_t> host = targets.to_vector<int32_t>();
  const auto n = static_cast<int64_t>(host.size());
  for (int64_t i = 0; i < n; ++i) {
    if (host[static_cast<size_t>(i)] == -1) continue;
    if (runs.all.empty() || runs.all.back().second != i) runs.all.emplace_back(i, i);
    runs.all.back().second = i + 1;
    ++runs.tokens;
  }
  return runs;
}

Shape with_rows(const Tensor& t, int64_t rows) {
  Shape shape = t.shape();
  shape[0] = rows;
  return shape;
}

// The rows of the runs, one after another.
Tensor gathered(const Tensor& t, const Runs& runs) {
  Tensor packed = Tensor::empty(with_rows(t, runs.tokens), t.dtype(), t.device());
  int64_t at = 0;
  for (const auto& [begin, end] : runs.all) {
    packed.rows(at, at + end - begin).copy_from(t.rows(begin, end));
    at += end - begin;
  }
  return packed;
}

// The reverse, into `rows` rows; zeros elsewhere.
Tensor spread(const Tensor& packed, const Runs& runs, int64_t rows) {
  if (!packed.defined()) return packed;
  Tensor t = Tensor::zeros(with_rows(packed, rows), packed.dtype(), packed.device());
  int64_t at = 0;
  for (const auto& [begin, end] : runs.all) {
    t.rows(begin, end).copy_from(packed.rows(at, at + end - begin));
    at += end - begin;
  }
  return t;
}

struct Head {
  Tensor x, weight, targets;  // [T, C], [V, C], i32 [T]
  Tensor losses;              // f64 [T]
  Tensor dx, dw;              // undefined where no gradient is wanted
  double scale = 1;

  void chunk(int64_t begin, int64_t end, const Tensor& logits_buffer, const Tensor& dlogits_buffer) const {
    const int64_t rows = end - begin, cols = x.size(1), vocab = weight.size(0);
    const Tensor xs = x.rows(begin, end);
    const Tensor logits = logits_buffer.rows(0, rows);
    kernels::matmul({.stream = x.stream(),
                     .m = rows,
                     .n = vocab,
                     .k = cols,
                     .dtype = x.dtype(),
                     .out_dtype = logits.dtype(),
                     .transpose_b = true,
                     .a = xs.raw(),
                     .b = weight.raw(),
                     .c = logits.raw()});
    const bool gradients = dx.defined() || dw.defined();
    const Tensor dlogits = gradients ? dlogits_buffer.rows(0, rows) : Tensor();
    kernels::cross_entropy({.stream = x.stream(),
                            .dtype = logits.dtype(),
                            .grad_dtype = x.dtype(),
                            .rows = rows,
                            .vocab = vocab,
                            .logits = logits.raw(),
                            .targets = targets.rows(begin, end).data<int32_t>(),
                            .scale = scale,
                            .losses = losses.rows(begin, end).data<double>(),
                            .dlogits = gradients ? dlogits.raw() : nullptr});
    if (dx.defined())
      kernels::matmul({.stream = x.stream(),
                       .m = rows,
                       .n = cols,
                       .k = vocab,
                       .dtype = x.dtype(),
                       .out_dtype = dx.dtype(),
                       .a = dlogits.raw(),
                       .b = weight.raw(),
                       .c = dx.rows(begin, end).raw()});
    if (dw.defined())
      kernels::matmul({.stream = x.stream(),
                       .m = vocab,
                       .n = cols,
                       .k = rows,
                       .dtype = x.dtype(),
                       .out_dtype = dw.dtype(),
                       .transpose_a = true,
                       .beta = begin ? 1.0f : 0.0f,
                       .a = dlogits.raw(),
                       .b = xs.raw(),
                       .c = dw.raw()});
  }

  void run() const {
    const ProfileScope profile("loss", {});
    const int64_t tokens = x.size(0), vocab = weight.size(0), rows = std::min(tokens, chunk_rows(vocab));
    const Tensor logits = Tensor::empty({rows, vocab}, wide(x.dtype()), x.device());
    const bool separate = (dx.defined() || dw.defined()) && x.dtype() != logits.dtype();
    const Tensor dlogits = separate ? Tensor::empty({rows, vocab}, x.dtype(), x.device()) : logits;
    for (int64_t begin = 0; begin < tokens; begin += rows) chunk(begin, std::min(tokens, begin + rows), logits, dlogits);
  }
};

double sum_in_order(const Tensor& losses) {
  double total = 0;
  for (double loss : losses.to_vector<double>()) total += loss;
  return total;
}

void hand_over(const Variable& to, Tensor& gradient, double factor) {
  if (!gradient.defined()) return;
  if (factor != 1) kernels::scale(gradient.stream(), gradient.dtype(), gradient.numel(), factor, gradient.raw(), gradient.raw());
  to.add_grad(std::move(gradient));
}

}  // namespace

Variable linear_cross_entropy(const Variable& x, const Variable& weight, const Tensor& targets, double scale, Tensor* token_losses) {
  const Tensor &xv = x.value(), &wv = weight.value();
  MOBA_CHECK(xv.dim() == 2 && wv.dim() == 2 && wv.size(0) >= 1 && xv.size(1) == wv.size(1) && xv.dtype() == wv.dtype(),
             "linear_cross_entropy: x {} {} does not fit weight {} {}", dtype_name(xv.dtype()), to_string(xv.shape()),
             dtype_name(wv.dtype()), to_string(wv.shape()));
  check_dtype("linear_cross_entropy", "targets", targets.dtype(), DType::i32);
  MOBA_CHECK(targets.numel() == xv.size(0), "linear_cross_entropy: {} targets for {} tokens", targets.numel(), xv.size(0));

  // Where many targets do not count (supervised fine-tuning), only the rows that do go through the head.
  const int64_t tokens = xv.size(0);
  const Tensor flat_targets = targets.reshape({-1});
  const Runs runs = counted_runs(flat_targets);
  const bool sparse = runs.tokens < tokens - tokens / kSparseShare;
  const int64_t rows = sparse ? runs.tokens : tokens;
  auto head = std::make_shared<Head>();
  head->x = sparse ? gathered(xv, runs) : xv;
  head->weight = wv;
  head->targets = sparse ? gathered(flat_targets, runs) : flat_targets;
  head->losses = Tensor::empty({rows}, DType::f64, xv.device());
  head->scale = scale;
  if (records({x})) head->dx = Tensor::empty({rows, xv.size(1)}, x.grad_dtype(), xv.device());
  if (records({weight})) head->dw = (rows ? Tensor::empty : Tensor::zeros)(wv.shape(), wide(wv.dtype()), wv.device());
  head->run();
  if (sparse) {
    head->losses = spread(head->losses, runs, tokens);
    head->dx = spread(head->dx, runs, tokens);
  }
  if (token_losses) *token_losses = head->losses;

  Tensor y = Tensor::full({1}, scale * sum_in_order(head->losses), DType::f64, xv.device());
  head->x = head->weight = head->targets = head->losses = Tensor();
  return make_output(std::move(y), "linear_cross_entropy", {x, weight}, [head, x = x.edge(), weight = weight.edge()](const Tensor& grad) {
    hand_over(x, head->dx, grad.item());
    hand_over(weight, head->dw, grad.item());
  });
}

}  // namespace moba::ops
