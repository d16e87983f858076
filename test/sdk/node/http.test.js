import { cases } from "./cases.js";

cases("HTTP");
