// HeapTrimmer: many changes of a World leave holes in the heap; their pages go back to the kernel.
// Used by agent, controller and slice keeper when nothing is under way.
#pragma once

#include <malloc.h>

#include <cstdint>

namespace egw::runtime {

class HeapTrimmer {
 public:
  // changes: how many there have been, ever. Takes some 10 ms for
  // 100 MB where there have been many since the last time.
  void look(std::uint64_t changes) {
    if (changes - trimmed_at_ < kMany) return;
    trimmed_at_ = changes;
    ::malloc_trim(0);
  }

 private:
  static constexpr std::uint64_t kMany = 1'000;
  std::uint64_t trimmed_at_ = 0;
};

}  // namespace egw::runtime
