// Growing pauses with full jitter between attempts, so that a thousand clients of a server that
// comes back do not all come at once. Used by api.cpp and reflector.cpp.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace egw::kube {

class BackOff {
 public:
  using Milliseconds = std::chrono::milliseconds;
  BackOff(Milliseconds first, Milliseconds longest)
      : first_(first), longest_(longest), bound_(first), random_(std::random_device{}()) {}

  void reset() { bound_ = first_; }
  // No pause that is longer than this for now.
  void limit(Milliseconds longest) { bound_ = std::min(bound_, longest); }
  // Between half of the bound and the bound, which doubles. at_least: what the server asked for;
  // on top of it comes the same jitter.
  Milliseconds next(Milliseconds at_least = Milliseconds(0)) {
    std::uniform_int_distribution<std::int64_t> spread(bound_.count() / 2, bound_.count());
    bound_ = std::min(bound_ * 2, longest_);
    return at_least + Milliseconds(spread(random_));
  }

 private:
  const Milliseconds first_, longest_;
  Milliseconds bound_;
  std::minstd_rand random_;
};

}  // namespace egw::kube
