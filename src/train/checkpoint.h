// Checkpoints of a run: <run>/checkpoints/step-00001000/, a Hugging Face directory with the optimizer's moments and the trainer's
// state beside it. A step folder appears under its name only when it is whole and on disk:
//
//   write .tmp-step-00001000/* (MANIFEST.json last), fsync files and folder -> rename -> fsync parent -> move `latest` -> prune
//
// so that a crash at any moment leaves the previous checkpoint or the new one, never a mixture. With several ranks each writes the
// weights and moments of the parameters it owns, rank 0 the rest; a checkpoint is read by any number of ranks.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "src/distributed/communicator.h"
#include "src/interop/hf_config.h"
#include "src/layers/transformer.h"
#include "src/optim/optimizer.h"

namespace moba {

struct CheckpointContents {
  int64_t step = 0;                // finished updates
  Transformer& model;              // its fp32 masters are written
  Optimizer* optimizer = nullptr;  // null: weights only
  nlohmann::json trainer_state;    // whatever the trainer needs to go on; "step" is added
  nlohmann::json config;           // of hf_config(ModelDescription)
  std::string tokenizer_json;      // bytes of tokenizer.json; empty: none written
  Communicator* ranks = nullptr;   // null: this process writes everything
  std::vector<int> owners = {};    // with ranks: which of them writes each of the model's parameters
};

// Returns the step folder. Afterwards only the keep_last newest remain (0: all); folders of later steps, left over from a history
// this run went back behind, are removed too. On failure (disk full: Error with ExitCode::io) nothing but the old checkpoints remains.
// Collective: a failure of any rank is thrown on all.
std::string save_checkpoint(const std::string& run_dir, const CheckpointContents& contents, int keep_last);

// Step folder of the newest checkpoint whose every file has the size and hash of its manifest, or none. What is passed over is
// said through log (one message per damaged folder).
std::optional<std::string> newest_checkpoint(const std::string& run_dir, const std::function<void(const std::string&)>& log);

// Error(corrupt_input) naming the first file that is missing or differs from MANIFEST.json.
void verify_checkpoint(const std::string& dir);

// Fills the masters, refreshes compute copies, fills the optimizer's state (unless null) and returns trainer_state.json. Files
// were checked by newest_checkpoint; for a folder named by the user call verify_checkpoint first.
nlohmann::json load_checkpoint(const std::string& dir, Transformer& model, Optimizer* optimizer);
// Only the optimizer's state, from whatever number of ranks wrote it. state_tensors: of the whole model, however it is sharded.
void load_optimizer(const std::string& dir, Optimizer& optimizer, int64_t state_tensors);

// Weights only, from a step folder or any Hugging Face directory of safetensors (sharded or not), f16/bf16/f32/f64. A tensor that
// is missing, unknown or of another shape is an Error listing all of them.
void load_weights(const std::string& dir, Transformer& model);
// The list alone: reads no weights.
void check_weights_fit(const std::string& dir, Transformer& model);
// The same for a folder that the user named: its hashes are checked first where it has a MANIFEST.json (Error corrupt_input).
void load_checked_weights(const std::string& dir, Transformer& model);

// XXH3 over the names, shapes and bytes of the weights in dir, 16 hex digits: what init_from read, for run.json.
std::string weights_hash(const std::string& dir);

// The directory with config.json that a user means by a path: a run folder (its checkpoints/latest), `latest` itself, a step
// folder, or a Hugging Face directory. Error naming what was looked for.
std::string resolve_checkpoint(const std::string& path);

}  // namespace moba
