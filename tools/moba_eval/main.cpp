// moba-eval: loss, generation, attention recall, dumps for checks, and export of a checkpoint.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "kernels/common/check.h"
#include "tools/common/command_line.h"
#include "tools/common/program.h"
#include "tools/moba_eval/commands.h"

namespace moba::eval {
namespace {

void add_model_options(const Command& command, ModelOptions& o) {
  command.add_option("checkpoint", o.checkpoint, "A run's folder (its newest checkpoint), a step folder, or a Hugging Face directory")
      .required();
  command.add_option("--attn", o.attention, "Attention of every layer: full, moba, moba_naive or window");
  command.add_option("--hybrid-layers", o.hybrid_layers, "These layers full, all others MoBA: lastN, firstN, none, all or 0,3,7");
  command.add_option("--precision", o.precision, "Arithmetic of the pass: fp32 or bf16").one_of({"fp32", "bf16"}).show_default();
}

// --grid takes words until the next option, and would take the checkpoint in `recall --grid 128,3 CHECKPOINT --data X`. What can't be a
// setting is moved to where it is no option's.
std::vector<char*> checkpoint_first(int argc, char** argv) {
  std::vector<char*> out(argv, argv + argc);
  const auto recall = std::find(out.begin(), out.end(), std::string_view("recall"));
  const auto grid = std::find(recall, out.end(), std::string_view("--grid"));
  const auto other = std::find_if(grid, out.end(), [](std::string_view word) {
    return !word.starts_with("-") && word.find_first_not_of("0123456789,") != std::string_view::npos;
  });
  const bool of_grid = grid != out.end() && std::none_of(grid + 1, other, [](std::string_view word) { return word.starts_with("-"); });
  if (other != out.end() && of_grid) std::rotate(recall + 1, other, other + 1);
  out.push_back(nullptr);
  return out;
}

int run(int argc, char** argv) {
  const CommandLine app{"Loss, text, attention recall, dumps and export of a checkpoint", "moba-eval"};
  app.require_subcommand();
  app.fallthrough();
  app.add_threads();
  ModelOptions model;

  LossOptions loss;
  const auto loss_command = app.add_subcommand("loss", "Loss over a token dataset");
  add_model_options(loss_command, model);
  loss_command.add_option("--data", loss.data, "Token dataset, X.h5").required();
  loss_command.add_option("--sequence-length", loss.sequence_length, "Tokens of a sequence (default: max_position_embeddings)").positive();
  loss_command
      .add_option("--trailing", loss.trailing,
                  "Also the loss over the last M tokens of full windows of documents; sft: over the last M counted targets of each example")
      .non_negative();
  loss_command
      .add_option("--bins", loss.bins,
                  "Also the loss by position, in n parts of full windows of documents; sft: by position within each example")
      .non_negative();
  loss_command.add_option("--max-tokens", loss.max_tokens, "Stop after so many tokens (default: all)").non_negative();
  loss_command
      .add_option("--task", loss.task,
                  "How the data is packed: pretrain cuts running text anywhere; sft puts whole examples side by side, each attending to "
                  "itself only, and drops those longer than a sequence (default: sft if the data has a loss mask)")
      .one_of({"pretrain", "sft"});
  loss_command.add_flag("--document-mask", loss.document_mask, "Attention stays inside documents");
  const auto json_flag = loss_command.add_flag("--json", loss.json, "One JSON object");
  loss_command.add_flag("--routing", loss.routing, "With --json: which block reads which, by layer and head").needs(json_flag);
  loss_command.callback([&] { run_loss(model, loss); });

  GenerateCommand generation;
  const auto generate_command = app.add_subcommand("generate", "Continue a prompt");
  add_model_options(generate_command, model);
  const auto prompt = generate_command.add_option("--prompt", generation.prompt, "Text to go on with");
  generate_command.add_option("--prompt-file", generation.prompt_file, "File with that text").existing_file().excludes(prompt);
  generate_command.add_option("--max-new-tokens", generation.max_new_tokens, "Tokens to add at most")
      .range(0, INT32_MAX / 2)
      .show_default();
  generate_command.add_option("--temperature", generation.temperature, "0: always the most likely token").non_negative().show_default();
  generate_command.add_option("--top-p", generation.top_p, "Draw from the most likely tokens of this total probability")
      .share()
      .show_default();
  generate_command.add_option("--seed", generation.seed, "Same seed, same text").show_default();
  generate_command.add_option("--decode", generation.decode, "MoBA layers while decoding: full cache or moba")
      .one_of({"full", "moba"})
      .show_default();
  generate_command.callback([&] { run_generate(model, generation); });

  DumpOptions dump;
  const auto dump_command = app.add_subcommand("dump", "One pass laid open in HDF5, for checks from Python");
  add_model_options(dump_command, model);
  dump_command.add_option("--tokens", dump.tokens, "Token dataset, X.h5; its first tokens are used").required();
  dump_command.add_option("--output", dump.output, "File to write, OUT.h5").required();
  dump_command
      .add_option("--sequence-length", dump.sequence_length, "Tokens of a sequence (default: max_position_embeddings, at most the file)")
      .positive();
  dump_command.add_option("--sequences", dump.sequences, "Sequences side by side").positive().show_default();
  dump_command.add_flag("--document-mask", dump.document_mask, "Attention stays inside documents");
  dump_command.add_flag("--selected", dump.selected, "Blocks that each query of a MoBA layer chose");
  dump_command.add_flag("--gradients", dump.gradients, "Gradient of the loss by every parameter");
  dump_command.callback([&] { run_dump(model, dump); });

  RecallOptions recall;
  const auto recall_command =
      app.add_subcommand("recall", "Attention mass that MoBA's blocks keep, by layer and head, and the loss with MoBA");
  add_model_options(recall_command, model);
  recall_command.add_option("--data", recall.data, "Token dataset, X.h5").required();
  recall_command.add_option("--grid", recall.grid, "Settings S,K to look at: block size and blocks read (--grid 128,3 64,6)").required();
  recall_command.add_option("--gate", recall.gate, "How blocks are chosen: mean, minmax, window, sink, random or oracle").show_default();
  recall_command.add_option("--keep", recall.keep, "Wanted share of mass: how many of the last layers must stay full for it")
      .show_default();
  recall_command.add_option("--sequence-length", recall.sequence_length, "Tokens of a sequence (default: max_position_embeddings)")
      .positive();
  recall_command.add_option("--sequences", recall.sequences, "Sequences to look at, the first of the data").positive().show_default();
  recall_command.add_option("--svg", recall.svg, "Write the picture to this file");
  recall_command.add_flag("--json", recall.json, "One JSON object");
  recall_command.callback([&] { run_recall(model, recall); });

  ExportOptions exporting;
  const auto export_command = app.add_subcommand("export", "Write a Hugging Face directory");
  add_model_options(export_command, model);
  export_command.add_option("output", exporting.output, "Folder to write").required();
  export_command.add_option("--dtype", exporting.dtype, "bf16 or f32").one_of({"bf16", "f32"}).show_default();
  export_command.callback([&] { run_export(model, exporting); });

  std::vector<char*> words = checkpoint_first(argc, argv);
  if (const auto code = app.parse(argc, words.data())) return *code;
  return 0;
}

}  // namespace
}  // namespace moba::eval

int main(int argc, char** argv) {
  return moba::run_program("moba-eval: ", [&] { return moba::eval::run(argc, argv); });
}
