import { cases } from "./cases.js";
import { invokeCases } from "./invoke.js";
import { stateCases } from "./state.js";
import { storeCases } from "./stores.js";

cases("GRPC");
invokeCases("GRPC");
stateCases("GRPC");
storeCases("GRPC");
