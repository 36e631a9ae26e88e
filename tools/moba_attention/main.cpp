// moba-attention IN.h5 OUT.h5: the operation alone on tensors from a file, so
// that anyone can check it from Python.
#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "kernels/moba_attention/moba_attention.h"
#include "kernels/moba_gate/moba_gate.h"
#include "src/data/output_file.h"
#include "tools/common/command_line.h"
#include "tools/common/program.h"
#include "tools/moba_attention/tensor_file.h"

namespace moba {
namespace {

using namespace kernels;

constexpr const char* kHelp =
    "MoBA or full attention on tensors from an HDF5 file.\n"
    "Input: q [T,H,D], k and v [Tk,Hk,D] float32, cu_seqlens int32 [B+1] of q, "
    "cu_seqlens_k where it differs, optional grad_out [T,H,D];\n"
    "attributes on /: moba_chunk_size, moba_topk, optional softmax_scale, "
    "gate, select, seed.\n"
    "Output: out [T,H,D], lse [T,H], selected [T,H,min(K,N)] int32 (own block "
    "first, -1 padded), and with grad_out grad_q, grad_k, grad_v.";

struct Options {
  std::string input, output, attention = "moba", dtype = "f32", device = "cpu";
  int threads = 0;
};

struct Problem {
  FileTensor q, k, v, grad_out;
  std::vector<int32_t> cu_q, cu_k;
  MobaGateArgs gate;  // shape, sizes, gate
  double softmax_scale = 0;
  bool has_gradient = false;
};

Gate parse_gate(const std::string& name) {
  for (const Gate gate : {Gate::mean, Gate::minmax, Gate::window, Gate::sink, Gate::random, Gate::oracle})
    if (name == gate_name(gate)) return gate;
  throw Error(
      fmt::format("attribute gate = \"{}\"; allowed: mean, minmax, "
                  "window, sink, random, oracle",
                  name));
}

Select parse_select(const std::string& name) {
  for (const Select select : {Select::per_head, Select::per_group})
    if (name == select_name(select)) return select;
  throw Error(fmt::format("attribute select = \"{}\"; allowed: per_head, per_group", name));
}

void check_same_shape(const std::string& path, const char* a_name, const FileTensor& a, const char* b_name, const FileTensor& b) {
  if (a.shape == b.shape) return;
  throw Error(fmt::format("{}: {} is [{}] but {} is [{}]; they must agree", path, a_name, fmt::join(a.shape, ", "), b_name,
                          fmt::join(b.shape, ", ")),
              ExitCode::corrupt_input);
}

Problem read_problem(const Options& options) {
  const TensorReader file(options.input);
  Problem p;
  p.q = file.tensor("q", 3);
  p.k = file.tensor("k", 3);
  p.v = file.tensor("v", 3);
  check_same_shape(options.input, "v", p.v, "k", p.k);
  if (p.q.shape[2] != p.k.shape[2])
    throw Error(fmt::format("{}: q has head dimension {} but k has {}; they must agree", options.input, p.q.shape[2], p.k.shape[2]),
                ExitCode::corrupt_input);
  p.cu_q = file.integers("cu_seqlens");
  p.cu_k = file.has("cu_seqlens_k") ? file.integers("cu_seqlens_k") : p.cu_q;
  if (p.cu_q.empty() || p.cu_q.size() != p.cu_k.size())
    throw Error(fmt::format("{}: cu_seqlens has {} offsets, cu_seqlens_k {}; "
                            "both need one more than there are sequences",
                            options.input, p.cu_q.size(), p.cu_k.size()),
                ExitCode::corrupt_input);
  p.has_gradient = file.has("grad_out");
  if (p.has_gradient) {
    p.grad_out = file.tensor("grad_out", 3);
    check_same_shape(options.input, "grad_out", p.grad_out, "q", p.q);
  }
  p.gate.shape = {std::ssize(p.cu_q) - 1, nullptr, nullptr, p.q.dim(0), p.k.dim(0), p.q.dim(1), p.k.dim(1), p.q.dim(2)};
  p.softmax_scale =
      file.has_attribute("softmax_scale") ? file.real_attribute("softmax_scale") : 1 / std::sqrt(static_cast<double>(p.q.dim(2)));
  if (options.attention != "full") {
    p.gate.chunk_size = file.integer_attribute("moba_chunk_size");
    p.gate.topk = file.integer_attribute("moba_topk");
    if (file.has_attribute("gate")) p.gate.gate = parse_gate(file.text_attribute("gate"));
    if (file.has_attribute("select")) p.gate.select = parse_select(file.text_attribute("select"));
    if (file.has_attribute("seed")) p.gate.seed = static_cast<uint64_t>(file.integer_attribute("seed"));
  }
  return p;
}

template <class T>
std::vector<T> convert(const std::vector<float>& x) {
  std::vector<T> y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](float value) {
    if constexpr (std::is_same_v<T, bf16>)
      return to_bf16(value);
    else
      return value;
  });
  return y;
}

template <class T>
std::vector<float> widened(const std::vector<T>& x) {
  std::vector<float> y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](T value) { return to_float(value); });
  return y;
}

// [T, Hk, slots] -> [T, H, slots]: every query head of a group reads the
// group's list.
std::vector<int32_t> per_query_head(const std::vector<int32_t>& selected, const MobaGateArgs& gate) {
  const int64_t group = gate.shape.heads / gate.shape.kv_heads;
  if (gate.select == Select::per_head || group == 1) return selected;
  std::vector<int32_t> result;
  result.reserve(selected.size() * static_cast<size_t>(group));
  for (auto row = selected.begin(); row != selected.end(); row += gate.slots)
    for (int64_t g = 0; g < group; ++g) result.insert(result.end(), row, row + gate.slots);
  return result;
}

template <class T>
void solve(const Options& options, Problem& p) {
  const bool plain = options.attention == "reference";
  const std::vector<T> q = convert<T>(p.q.values), k = convert<T>(p.k.values), v = convert<T>(p.v.values),
                       grad_out = convert<T>(p.grad_out.values);
  MobaGateArgs& gate = p.gate;
  gate.shape.cu_seqlens_q = p.cu_q.data();
  gate.shape.cu_seqlens_k = p.cu_k.data();
  validate(gate.shape);

  std::vector<T> out(q.size());
  std::vector<float> lse(static_cast<size_t>(gate.shape.tokens_q * gate.shape.heads));
  AttentionGradArgs args;
  AttentionArgs& forward = args.forward;
  forward.shape = gate.shape;
  forward.dtype = gate.dtype = DTypeOf<T>::value;
  forward.softmax_scale = gate.softmax_scale = p.softmax_scale;
  forward.q = gate.q = q.data();
  forward.k = gate.k = k.data();
  forward.v = v.data();
  forward.out = out.data();
  forward.lse = lse.data();

  std::vector<int32_t> selected;
  if (options.attention != "full") {
    MOBA_CHECK(gate.chunk_size >= 1, "attribute moba_chunk_size = {}; allowed: 1 or more", gate.chunk_size);
    MOBA_CHECK(gate.topk >= 1,
               "attribute moba_topk = {}; allowed: 1 or more (it counts the "
               "own block)",
               gate.topk);
    gate.slots = moba_slots(gate.shape, gate.chunk_size, gate.topk);
    const int64_t rows = gate.select == Select::per_group ? gate.shape.kv_heads : gate.shape.heads;
    selected.resize(static_cast<size_t>(gate.shape.tokens_q * rows * gate.slots));
    gate.selected = selected.data();
    plain ? moba_gate_reference(gate) : moba_gate(gate);
    forward.type = AttentionType::moba;
    forward.chunk_size = gate.chunk_size;
    forward.slots = gate.slots;
    forward.selected_per_group = gate.select == Select::per_group;
    forward.selected = selected.data();
  }
  plain ? attention_forward_reference(forward) : attention_forward(forward);

  std::vector<T> grad_q(p.has_gradient ? q.size() : 0), grad_k(p.has_gradient ? k.size() : 0), grad_v(grad_k.size());
  if (p.has_gradient) {
    args.dout = grad_out.data();
    args.dq = grad_q.data();
    args.dk = grad_k.data();
    args.dv = grad_v.data();
    plain ? attention_backward_reference(args) : attention_backward(args);
  }

  TensorWriter file(options.output);
  file.write("out", p.q.shape, widened(out));
  file.write("lse", {p.q.shape[0], p.q.shape[1]}, lse);
  if (forward.type == AttentionType::moba)
    file.write("selected", {p.q.shape[0], p.q.shape[1], static_cast<hsize_t>(gate.slots)}, per_query_head(selected, gate));
  if (p.has_gradient) {
    file.write("grad_q", p.q.shape, widened(grad_q));
    file.write("grad_k", p.k.shape, widened(grad_k));
    file.write("grad_v", p.k.shape, widened(grad_v));
  }
  file.finish();
}

void run(const Options& options) {
  MOBA_CHECK(options.device == "cpu", "--device {}: this build has no CUDA attention; use --device cpu", options.device);
  if (options.threads != 0) set_num_threads(options.threads);
  check_output_file(options.output, {options.input});
  Problem problem = read_problem(options);
  options.dtype == "bf16" ? solve<bf16>(options, problem) : solve<float>(options, problem);
}

int parse_and_run(int argc, char** argv) {
  Options options;
  const CommandLine app(kHelp, "moba-attention");
  app.add_option("input", options.input, "IN.h5").required();
  app.add_option("output", options.output, "OUT.h5, written under a temporary name and renamed when complete").required();
  app.add_option("--attention", options.attention, "moba, full, or reference (MoBA by the plain kernel)")
      .one_of({"moba", "full", "reference"});
  app.add_option("--dtype", options.dtype, "f32, or bf16 (inputs are rounded first)").one_of({"f32", "bf16"});
  app.add_option("--device", options.device, "cpu or cuda").one_of({"cpu", "cuda"});
  app.add_option("--threads", options.threads, "compute threads; default: all cores").range(1, 1024);
  if (const auto code = app.parse(argc, argv)) return *code;
  run(options);
  return 0;
}

}  // namespace
}  // namespace moba

int main(int argc, char** argv) {
  return moba::run_program("moba-attention: ", [&] { return moba::parse_and_run(argc, argv); });
}
