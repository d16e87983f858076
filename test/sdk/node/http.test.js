import { cases } from "./cases.js";
import { stateCases } from "./state.js";

cases("HTTP");
stateCases("HTTP");
