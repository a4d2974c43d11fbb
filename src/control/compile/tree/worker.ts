/** A piscina task: builds one decision tree off the main thread. Its argument and result are plain memory. */
import { buildTree } from './store.js';

export default buildTree;
