import { cases } from "./cases.js";
import { stateCases } from "./state.js";
import { storeCases } from "./stores.js";

cases("GRPC");
stateCases("GRPC");
storeCases("GRPC");
