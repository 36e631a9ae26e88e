// What a sweep is to decide, written down before it runs.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moba::sweep {

enum class ClaimKind : uint8_t {
  equivalent,  // arm within +-margin of the reference: two one-sided tests on differences paired by seed
  lower,       // arm below the reference by more than margin
  higher,      // arm above the reference by more than margin
  falls,       // the metric falls over `arms` in their order: slope below -margin per arm
  no_spike,    // no jump of the training loss where the arm's attention changes
};

struct Claim {
  std::string name, where;
  ClaimKind kind = ClaimKind::equivalent;
  std::string metric = "eval_loss";  // eval_loss, trailing_loss, train_loss
  std::string arm, reference;
  std::vector<std::string> arms;  // kind falls
  double margin = 0;              // nats; of `equivalent` by default Margins::equivalence
};

struct Margins {
  double equivalence = 0.01;  // nats per token
  double confidence = 0.95;   // of every one-sided test
  // Variance of paired differences from all claims of the metric together, where it is not below that of the claim's own seeds; false:
  // each claim's own seeds only.
  bool pooled = false;
  int64_t spike_steps = 50;  // steps on both sides of a switch
  double spike_sigmas = 3;   // of the step loss before it
  std::vector<Claim> claims;
};

const char* claim_kind_name(ClaimKind kind);

}  // namespace moba::sweep
