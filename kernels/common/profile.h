// Where a step's time goes. Kernels name themselves and the work of a call; while a profile is taken, every call is timed on the thread
// that made it. While none is taken a call costs one load.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/common/types.h"

namespace moba {

// What a call has to do, by its shapes: operations, and bytes that it must read or write at least once.
struct KernelWork {
  double flops = 0, bytes = 0;
  int64_t m = 0, n = 0, k = 0;  // of a matrix product
};

inline double bytes_of(int64_t elements, DType dtype) { return static_cast<double>(elements) * static_cast<double>(dtype_size(dtype)); }

struct ProfileEvent {
  const char* name = "";
  KernelWork work;
  double begin = 0, end = 0;  // seconds of now_seconds()
  int thread = 0;             // 0: the thread that started the profile
};

bool profiling();
void start_profile();                            // forgets what was recorded before
std::vector<ProfileEvent> stop_profile();        // in the order in which the calls ended
void record_profile(const ProfileEvent& event);  // thread is filled in

// Times from here to the end of the block. name: a string literal.
class ProfileScope {
 public:
  ProfileScope(const char* name, const KernelWork& work);
  ~ProfileScope();
  ProfileScope(const ProfileScope&) = delete;

 private:
  ProfileEvent event_;
  bool on_;
};

}  // namespace moba
