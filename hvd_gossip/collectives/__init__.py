"""Named asynchronous collective operations over an Endpoint: negotiation, fusion, and the transfers themselves."""

from hvd_gossip.collectives.controller import Collectives as Collectives
from hvd_gossip.collectives.objects import decode_object as decode_object
from hvd_gossip.collectives.objects import decode_objects as decode_objects
from hvd_gossip.collectives.objects import encode_object as encode_object
from hvd_gossip.collectives.reduce import allreduce as allreduce
from hvd_gossip.collectives.request import Adasum as Adasum
from hvd_gossip.collectives.request import Average as Average
from hvd_gossip.collectives.request import Max as Max
from hvd_gossip.collectives.request import Min as Min
from hvd_gossip.collectives.request import Product as Product
from hvd_gossip.collectives.request import ReduceOp as ReduceOp
from hvd_gossip.collectives.request import Request as Request
from hvd_gossip.collectives.request import Result as Result
from hvd_gossip.collectives.request import Sum as Sum
from hvd_gossip.collectives.tracing import Trace as Trace
