// A leader election on the SDK that elects at once, loses, and is elected again, from a thread of
// its own. With identity "rude" it goes on calling after resign().
#include <atomic>
#include <thread>

#include "egw/sdk/leader_election.hpp"

namespace {

namespace sdk = egw::sdk;

class Scripted final : public sdk::LeaderElection {
 public:
  Scripted(std::string_view, std::string_view identity, sdk::Host host)
      : identity_(identity), host_(host) {}
  ~Scripted() override { stop(); }

  sdk::Status campaign(sdk::ElectionSink sink) override {
    if (identity_ == "unwanted") return sdk::fail(sdk::Code::kDenied, "not on the list");
    stop_ = false;
    thread_ = std::thread([this, sink] {
      sink.observed("somebody", 6);
      sink.elected(7);
      sink.lost("a better one came");
      sink.elected(8);
      while (!stop_) {
        if (identity_ == "rude") sink.observed("me", ++calls_);
        std::this_thread::yield();
      }
    });
    return sdk::ok();
  }
  void resign() override {
    if (identity_ != "rude") stop();
    host_.info("resigned");
  }
  sdk::Status health() override { return sdk::ok(); }

 private:
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  std::string identity_;
  sdk::Host host_;
  std::atomic<bool> stop_{false};
  std::uint64_t calls_ = 0;
  std::thread thread_;
};

}  // namespace

EGW_LEADER_ELECTION_PLUGIN(Scripted, "scripted", "0", "");
