// SIGTERM and SIGINT ask the run to finish its step, save and stop; SIGUSR1 to save and go on. Handlers only set flags.
#pragma once

namespace moba {

// Installs the handlers for its lifetime. A second SIGINT ends the process at once, as users expect of Ctrl-C.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  static bool stop_requested();
  static bool take_save_request();  // true once per SIGUSR1
};

}  // namespace moba
