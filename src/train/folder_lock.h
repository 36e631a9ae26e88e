// Keeps two processes from writing into one folder: a lock on FOLDER/.lock that ends with the process that holds it.
#pragma once
#include <string>

namespace moba {

struct FolderLockOptions {
  std::string program;          // that would hold it, for messages
  double patience_seconds = 0;  // how long to wait for a holder that is alive; it may be about to end
  bool inherited = false;       // children hold it too, and are waited for when the holder is dead
};

// True for the name of the file the lock lies on: a folder that holds nothing else counts as empty.
bool is_lock_file(const std::string& name);

class FolderLock {
 public:
  // The folder exists. Error(usage) naming the holder; Error(preempted) if a signal ends the wait; Error(io). In a folder that cannot
  // be written nothing is held, nor, which is said, where the file system has no locks.
  FolderLock(const std::string& folder, const FolderLockOptions& options);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace moba
