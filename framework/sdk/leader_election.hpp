// Base class of a leader election plugin. An author derives from LeaderElection, gives the class a
// constructor (std::string_view config_json, std::string_view identity, sdk::Host host), and writes
// EGW_LEADER_ELECTION_PLUGIN once. The constructor may throw sdk::Failure; the destructor resigns.
#pragma once

#include "egw/abi/leader_election.h"
#include "egw/sdk/plugin.hpp"

namespace egw::sdk {

// Where a campaign's news goes; a copyable handle. To be called from a thread of the plugin's own;
// no more after resign() or the destructor has returned.
class ElectionSink {
 public:
  ElectionSink() = default;
  explicit ElectionSink(const egw_election_sink& sink) : sink_(sink) {}

  // epoch: greater than that of every earlier holder, this one included.
  void elected(std::uint64_t epoch) const noexcept { sink_.elected(sink_.ctx, epoch); }
  void lost(std::string_view reason) const noexcept { sink_.lost(sink_.ctx, str(reason)); }
  void observed(std::string_view holder, std::uint64_t epoch) const noexcept {
    sink_.observed(sink_.ctx, str(holder), epoch);
  }

 private:
  egw_election_sink sink_{};
};

class LeaderElection {
 public:
  LeaderElection() = default;
  LeaderElection(const LeaderElection&) = delete;
  LeaderElection& operator=(const LeaderElection&) = delete;
  virtual ~LeaderElection() = default;

  // Starts to stand for the office and returns at once. After lost() the campaign goes on.
  virtual Status campaign(ElectionSink sink) = 0;
  // Gives the office up at once and stops the campaign. Without a campaign: does nothing.
  virtual void resign() = 0;
  // Without a campaign: kNotFound when nobody who lives holds the office, if that can be told.
  virtual Status health() = 0;
};

namespace detail {

template <class Class>
struct LeaderElectionThunks {
  static std::int32_t open(egw_str config, egw_str identity, const egw_host* host, void** instance,
                           const egw_error_sink* error) {
    return guarded(error, [&] {
      const Host services(host);
      *instance = new Instance<Class>(services, view(config), view(identity), services);
      return ok();
    });
  }
  static std::int32_t campaign(void* instance, const egw_election_sink* sink,
                               const egw_error_sink* error) {
    return guarded(error, [&] { return object_of<Class>(instance).campaign(ElectionSink(*sink)); });
  }
  static void resign(void* instance) {
    guarded_void(static_cast<Instance<Class>*>(instance)->host, "resign",
                 [&] { object_of<Class>(instance).resign(); });
  }
  static std::int32_t health(void* instance, const egw_error_sink* error) {
    return guarded(error, [&] { return object_of<Class>(instance).health(); });
  }
  static constexpr egw_leader_election_ops kOps{
      sizeof(egw_leader_election_ops), 0, open, detail::close<Class>, campaign, resign, health};
};

}  // namespace detail
}  // namespace egw::sdk

// name: as in the file name egw-leaderelection-<name>.so. schema: JSON Schema of the configuration,
// "" when there is none. All three are string literals or constexpr std::string_view.
#define EGW_LEADER_ELECTION_PLUGIN(Class, name, version, schema)                                 \
  EGW_SDK_ENTRY(Class, EGW_KIND_LEADER_ELECTION, ::egw::sdk::detail::LeaderElectionThunks, name, \
                version, schema, ::egw::sdk::detail::capabilities_of<Class>())
