# A Kubernetes cluster on AWS whose GPU machines start with a job and stop after it: Karpenter, KubeRay, Kueue and NVIDIA's
# device plugin; a bucket, a registry, and a least-privilege role for training. docs/cluster.md leads through it.
#
#   terraform -chdir=infra/terraform init
#   terraform -chdir=infra/terraform apply -var bucket=YOUR-BUCKET -var 'admin_cidrs=["YOUR.ADDRESS/32"]'

terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.0"
    }
  }
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { project = var.name }
  }
}

data "aws_availability_zones" "here" {
  state = "available"
  filter {
    name   = "opt-in-status" # no local zones
    values = ["opt-in-not-required"]
  }
}

module "vpc" {
  source  = "terraform-aws-modules/vpc/aws"
  version = "~> 6.0"

  name                = var.name
  cidr                = "10.20.0.0/16"
  azs                 = slice(data.aws_availability_zones.here.names, 0, 2)
  private_subnets     = ["10.20.0.0/20", "10.20.16.0/20"]
  public_subnets      = ["10.20.240.0/24", "10.20.241.0/24"]
  enable_nat_gateway  = true
  single_nat_gateway  = true
  private_subnet_tags = { "karpenter.sh/discovery" = var.name }
}

# Traffic between workers and the bucket stays inside the network and is free.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = module.vpc.vpc_id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = module.vpc.private_route_table_ids
}

module "eks" {
  source  = "terraform-aws-modules/eks/aws"
  version = "~> 21.0"

  name                                     = var.name
  kubernetes_version                       = "1.35"
  vpc_id                                   = module.vpc.vpc_id
  subnet_ids                               = module.vpc.private_subnets
  endpoint_public_access                   = true
  endpoint_public_access_cidrs             = var.admin_cidrs
  enable_cluster_creator_admin_permissions = true
  enable_irsa                              = true

  addons = {
    coredns                = {}
    eks-pod-identity-agent = {}
    kube-proxy             = {}
    vpc-cni = {
      before_compute = true
      # Without it, the NetworkPolicies of cluster/kuberay/setup have no effect.
      configuration_values = jsonencode({ enableNetworkPolicy = "true" })
    }
  }

  # Ray's nodes reach one another on any port, as NCCL does.
  node_security_group_additional_rules = {
    between_nodes = {
      description = "All traffic between nodes"
      protocol    = "-1"
      from_port   = 0
      to_port     = 0
      type        = "ingress"
      self        = true
    }
  }
  node_security_group_tags = { "karpenter.sh/discovery" = var.name }

  # Two small machines for the controllers. Karpenter starts the machines of jobs, and does not run on them.
  eks_managed_node_groups = {
    system = {
      ami_type       = "AL2023_x86_64_STANDARD"
      instance_types = [local.system_instance_type]
      min_size       = 2
      max_size       = 3
      desired_size   = 2
      labels         = { "vadv.dev/pool" = "system" }
    }
  }
}
