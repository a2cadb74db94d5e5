// Waits for files to be written, made, removed or closed, in whatever process (inotify looks at the
// inode, so it works across network and mount namespaces), and for wake() from another thread. Used
// by watcher.cpp and election.cpp.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "files.hpp"

namespace egw::local {

class FileWatch {
 public:
  // content: the file whose every write wakes; closed: also when it is closed by somebody who could
  // write. names: files whose appearing and vanishing wakes. Throws sdk::Failure.
  FileWatch(std::string content, bool closed, std::vector<std::string> names);

  // Until something happened to the files or wake() was called (true), or the time is over (false).
  bool wait(std::chrono::milliseconds longest);
  void wake();  // any thread

 private:
  void arm();
  bool drain();

  std::string content_;
  bool closed_;
  std::vector<std::string> names_;
  Fd inotify_, event_;
  bool armed_ = false;
};

}  // namespace egw::local
