// What every process of egw has in common, and run_controller (process.hpp). run_agent:
// process_agent.cpp, run_purge: process_purge.cpp.
#include "egw/runtime/process.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <csignal>
#include <utility>

#include "egw/core/admission.hpp"
#include "egw/host/plugin_host.hpp"
#include "egw/runtime/admin_client.hpp"
#include "egw/runtime/controller.hpp"
#include "egw/runtime/endpoints.hpp"
#include "egw/runtime/process_parts.hpp"
#include "egw/runtime/spawn.hpp"

namespace egw::runtime {
namespace asio = boost::asio;

host::AdmitReply admit_with(const model::Settings& settings, const host::AdmitRequest& request) {
  core::AdmitOp op = core::AdmitOp::kUpdate;
  switch (request.op) {
    case host::AdmitRequest::Op::kCreate:
      op = core::AdmitOp::kCreate;
      break;
    case host::AdmitRequest::Op::kUpdate:
      break;
    case host::AdmitRequest::Op::kDelete:
      op = core::AdmitOp::kDelete;
      break;
  }
  core::ObjectReader reader;
  reader.get = request.get;
  reader.each = request.each;
  host::AdmitReply reply;
  auto answer = core::admit(op, request.kind, request.old_object, request.new_object, reader,
                            settings, reply.object);
  reply.admitted = answer.admitted;
  reply.warnings = std::move(answer.warnings);
  reply.denials = std::move(answer.denials);
  return reply;
}

namespace {

asio::awaitable<void> control(Controller& controller, asio::io_context& loop) {
  co_await controller.run();
  loop.stop();
}

// Controllers may share a machine and a state folder: the first has the plain name.
std::string controller_role(const RuntimeConfig& config, FolderLock& lock) {
  const std::string_view role = "controller";
  if (lock.take(config.state_dir / fmt::format("{}.lock", role))) return std::string(role);
  return fmt::format("{}-{}", role, ::getpid());
}

}  // namespace

int run_controller(const RuntimeConfig& config) {
  Process process(config, "controller");
  if (auto made = make_state_dir(config.state_dir); !made) return process.refuse(made.error());
  FolderLock lock;
  const std::string role = controller_role(config, lock);

  host::PluginHost plugins(config.plugin_dir, process.executor(), process.plugin_log());
  auto store = process.open_store(plugins);
  if (!store) return process.refuse(store.error());
  const std::string identity = process.identity();
  auto election = plugins.open_leader_election(config.leader_election.name,
                                               config.leader_election.config, identity);
  if (!election) return process.refuse(election.error());

  Metrics metrics("controller", kVersion);
  ControllerOptions options;
  options.settings = config.settings;
  options.identity = identity;
  Controller controller(process.executor(), process.clock(), process.log(), metrics,
                        std::move(options), **store, **election);
  HealthChecks checks;
  checks.ready = [&controller] { return controller.ready(); };
  checks.started = [&controller] { return controller.synced(); };
  auto served = process.serve(
      health_endpoints(std::move(checks)), metrics_endpoints(metrics, nullptr),
      admin_endpoints(controller, process.log()), admin_socket(config.state_dir, role));
  if (!served) return process.refuse(served.error());

  process.on_stop([&](unsigned) {
    process.watchdog().arm(kStopTime);
    controller.stop();
  });
  process.log().info("controller started", {{"identity", identity}, {"version", kVersion}});
  spawn(process.executor(), control(controller, process.loop()));
  return process.run();
}

}  // namespace egw::runtime
