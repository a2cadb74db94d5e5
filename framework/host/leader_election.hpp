// LeaderElection: what the leader gate sees of an election, whatever implements it. Callbacks run
// on the executor given at opening.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "egw/model/result.hpp"

namespace egw::host {

struct ElectionEvents {
  std::function<void(std::uint64_t epoch)> elected;
  std::function<void(std::string reason)> lost;
  std::function<void(std::string holder, std::uint64_t epoch)> observed;
};

class LeaderElection {
 public:
  virtual ~LeaderElection() = default;
  virtual boost::asio::awaitable<Result<void>> campaign(ElectionEvents events) = 0;
  // No callback runs after it has returned.
  virtual boost::asio::awaitable<void> resign() = 0;
  virtual boost::asio::awaitable<Result<void>> health();
};

}  // namespace egw::host
