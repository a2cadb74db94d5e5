// What the HTTP servers of a process serve: health and metrics, and the admin API. Called by
// process.cpp.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "egw/runtime/agent.hpp"
#include "egw/runtime/controller.hpp"
#include "egw/runtime/http_server.hpp"

namespace egw::runtime {

struct HealthChecks {
  std::function<bool()> ready;
  std::function<bool()> started;
};

// GET /healthz (200 as long as the loop answers), /readyz, /startupz (503 until it holds).
[[nodiscard]] std::shared_ptr<HttpHandler> health_endpoints(HealthChecks checks);
// GET /metrics. agent: may be nullptr; asked for fresh numbers before each scrape.
[[nodiscard]] std::shared_ptr<HttpHandler> metrics_endpoints(const Metrics& metrics, Agent* agent);
// Asks `first`; what it does not know (404) goes to `second`.
[[nodiscard]] std::shared_ptr<HttpHandler> either(std::shared_ptr<HttpHandler> first,
                                                  std::shared_ptr<HttpHandler> second);

// GET /state /desired /observe /counters, POST /log-level (body: debug, info, warn or error).
[[nodiscard]] std::shared_ptr<HttpHandler> admin_endpoints(Agent& agent, Logger& log);
// GET /state, POST /log-level.
[[nodiscard]] std::shared_ptr<HttpHandler> admin_endpoints(Controller& controller, Logger& log);

}  // namespace egw::runtime
