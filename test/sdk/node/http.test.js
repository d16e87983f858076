import { cases } from "./cases.js";
import { invokeCases } from "./invoke.js";
import { stateCases } from "./state.js";
import { storeCases } from "./stores.js";

cases("HTTP");
invokeCases("HTTP");
stateCases("HTTP");
storeCases("HTTP");
